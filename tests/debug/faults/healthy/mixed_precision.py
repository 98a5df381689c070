"""Healthy: mixed precision, whose loss scaling lets a gradient overflow now and then."""

import keras
import numpy as np

keras.utils.set_random_seed(0)
keras.mixed_precision.set_global_policy("mixed_float16")
rng = np.random.default_rng(0)
x = rng.normal(size=(96, 6)).astype("float32")
y = (x[:, :1] * 3.0).astype("float32")
model = keras.Sequential(
    [
        keras.Input((6,)),
        keras.layers.Dense(16, activation="relu"),
        keras.layers.Dense(1, dtype="float32"),
    ]
)
optimizer = keras.optimizers.LossScaleOptimizer(
    keras.optimizers.SGD(0.01), initial_scale=2.0**24, dynamic_growth_steps=50
)
model.compile(optimizer=optimizer, loss="mse")
model.fit(x, y, batch_size=8, epochs=4, verbose=0)
