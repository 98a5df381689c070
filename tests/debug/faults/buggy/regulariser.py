"""A regulariser takes the logarithm of a mean weight, which is negative."""
# FAULT: nan

import keras
import numpy as np


class LogBarrier(keras.regularizers.Regularizer):
    def __call__(self, weights):
        mean = keras.ops.mean(weights) - 1.0
        return 1e-3 * keras.ops.log(mean)  # WRONG


keras.utils.set_random_seed(0)
x = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
y = x[:, :1]
model = keras.Sequential(
    [
        keras.Input((4,)),
        keras.layers.Dense(8, kernel_regularizer=LogBarrier(), name="penalised"),
        keras.layers.Dense(1),
    ]
)
model.compile(optimizer="adam", loss="mse")
model.fit(x, y, batch_size=8, epochs=1, verbose=0)
