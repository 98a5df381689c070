"""Labels count from 1 while the classifier has classes 0 to 3."""
# FAULT: label
# CAUSE: label.*4|label.*range

import keras
import numpy as np

keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)
x = rng.normal(size=(64, 6)).astype("float32")
y = rng.integers(1, 5, size=64)  # WRONG
model = keras.Sequential(
    [keras.Input((6,)), keras.layers.Dense(8, activation="relu"), keras.layers.Dense(4)]
)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(optimizer="adam", loss=loss)
model.fit(x, y, batch_size=16, epochs=1, verbose=0)
