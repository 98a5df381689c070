"""Integer labels are given to the one-hot categorical cross-entropy."""
# FAULT: shape|rank|target|label|loss
# CAUSE: sparse|one-hot

import keras
import numpy as np

rng = np.random.default_rng(0)
x = rng.normal(size=(32, 5)).astype("float32")
y = rng.integers(0, 3, size=32)
model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3, activation="softmax")])
model.compile(optimizer="adam", loss="categorical_crossentropy")  # WRONG
model.fit(x, y, batch_size=8, epochs=1, verbose=0)
