"""Quantile regression with a pinball loss for 10/50/90 %; the outer quantiles are meant to be off-centre."""
import numpy as np
import tensorflow as tf
import keras

QUANTILES = (0.1, 0.5, 0.9)


class Pinball(keras.losses.Loss):
    def call(self, y_true, y_pred):
        q = tf.constant(QUANTILES, y_pred.dtype)
        err = tf.cast(y_true, y_pred.dtype) - y_pred
        return tf.reduce_mean(tf.maximum(q * err, (q - 1.0) * err), axis=-1)


class QuantileNet(keras.Model):
    def __init__(self, width=64):
        super().__init__()
        self.a = keras.layers.Dense(width, activation="swish")
        self.b = keras.layers.Dense(width, activation="swish")
        self.out = keras.layers.Dense(len(QUANTILES))

    def call(self, x):
        return self.out(self.b(self.a(x)))


rng = np.random.default_rng(1)
x = rng.uniform(-2, 2, (5000, 1)).astype("float32")
y = (np.sin(2 * x) + rng.normal(size=x.shape) * (0.1 + 0.25 * np.abs(x))).astype("float32")
net = QuantileNet()
net.compile(keras.optimizers.Adam(2e-3), loss=Pinball())
net.fit(x[:4000], y[:4000], epochs=20, batch_size=64, verbose=0)
p = net.predict(x[4000:], verbose=0)
cover = [(y[4000:, 0] < p[:, i]).mean() for i in range(3)]
print("share of targets below each quantile:", np.round(cover, 3))
