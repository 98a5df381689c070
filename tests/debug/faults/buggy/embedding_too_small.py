"""The table has 100 rows and the tokens go from 1 to 100."""
# FAULT: index-out-of-range

import keras
import numpy as np

rng = np.random.default_rng(0)
tokens = rng.integers(1, 101, size=(64, 12))
tokens[0, 0] = 100
y = rng.integers(0, 2, (64, 1))
model = keras.Sequential(
    [
        keras.layers.Embedding(100, 8),  # WRONG
        keras.layers.GlobalAveragePooling1D(),
        keras.layers.Dense(1, "sigmoid"),
    ]
)
model.compile("adam", "binary_crossentropy")
model.fit(tokens, y, epochs=1, verbose=0)
