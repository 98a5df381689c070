"""Weights in float16: the squares of small gradients underflow to 0 in Adam's state."""
# FAULT: nan|inf|float16

import keras
import numpy as np

keras.config.set_dtype_policy("float16")
keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)
x = rng.normal(size=(256, 8)).astype("float16")
y = (x[:, :1] > 0).astype("float16")
model = keras.Sequential([keras.layers.Dense(16, "relu"), keras.layers.Dense(1, "sigmoid")])
model.compile(keras.optimizers.Adam(1e-2), "binary_crossentropy")  # WRONG
model.fit(x, y, epochs=5, verbose=0)
