"""A metric that Keras does not have; Keras looks for it once it has a batch."""
# FAULT: unknown-name
# CAUSE: accuraccy

import keras
import numpy as np

keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)
x = rng.normal(size=(64, 6)).astype("float32")
y = rng.integers(0, 4, size=64)
model = keras.Sequential(
    [keras.Input((6,)), keras.layers.Dense(8, activation="relu"), keras.layers.Dense(4)]
)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile("adam", loss, metrics=["accuraccy"])  # WRONG
model.fit(x, y, batch_size=16, epochs=1, verbose=0)
