"""Ninety-eight of a hundred samples are of one class, and nothing balances them."""
# FAULT: imbalance|collapse
# CAUSE: imbalance|class

import keras
import numpy as np

keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)
x = rng.normal(size=(400, 5)).astype("float32")
y = np.zeros(400, "int32")  # WRONG
y[:8] = 1
model = keras.Sequential(
    [keras.Input((5,)), keras.layers.Dense(8, activation="relu"), keras.layers.Dense(2)]
)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(optimizer="adam", loss=loss, metrics=["accuracy"])
model.fit(x, y, batch_size=20, epochs=12, verbose=0)
