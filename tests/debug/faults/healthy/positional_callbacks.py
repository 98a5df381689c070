"""Healthy: callbacks given by position, and a batch loop with train_on_batch after fit."""

import keras
import numpy as np

keras.utils.set_random_seed(0)
x = np.random.default_rng(0).normal(size=(96, 4)).astype("float32")
y = x @ np.ones((4, 1), "float32")
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dense(1)])
model.compile(optimizer=keras.optimizers.Adam(0.01), loss="mse", metrics=["mae"])
model.fit(x, y, 16, 4, 0, [keras.callbacks.TerminateOnNaN()])
for start in range(0, 96, 16):
    model.train_on_batch(x[start : start + 16], y[start : start + 16])
