"""The learning rate is thousands of times too high: the weights explode within a few steps."""
# FAULT: exploding|divergence|learning-rate
# CAUSE: learning rate|update|diverge|explod

import keras
import numpy as np

keras.utils.set_random_seed(0)
x = np.random.default_rng(0).normal(size=(256, 8)).astype("float32")
y = (x @ np.ones((8, 1))).astype("float32")
model = keras.Sequential(
    [keras.Input((8,)), keras.layers.Dense(32, activation="relu"), keras.layers.Dense(1)]
)
model.compile(optimizer=keras.optimizers.SGD(learning_rate=1000.0), loss="mse")  # WRONG
model.fit(x, y, batch_size=16, epochs=4, verbose=0)
