"""RealNVP-like flow on a thin curve: the negative log-likelihood goes below zero because densities exceed 1."""
import math

import numpy as np
import tensorflow as tf
import keras


class Coupling(keras.layers.Layer):
    def __init__(self, flip):
        super().__init__()
        self.flip = flip
        self.net = keras.Sequential([keras.layers.Dense(48, "relu"), keras.layers.Dense(48, "relu"),
                                     keras.layers.Dense(2, kernel_initializer="zeros")])

    def call(self, x):
        a, b = tf.split(x, 2, axis=1)
        if self.flip:
            a, b = b, a
        s, t = tf.split(self.net(a), 2, axis=1)
        s = 2.0 * tf.tanh(s)
        b = b * tf.exp(s) + t
        out = tf.concat([b, a] if self.flip else [a, b], 1)
        return out, s[:, 0]


class Flow(keras.Model):
    def __init__(self, n=6):
        super().__init__()
        self.steps = [Coupling(i % 2 == 1) for i in range(n)]

    def call(self, x):
        log_det = 0.0
        for c in self.steps:
            x, ld = c(x)
            log_det += ld
        return -0.5 * tf.reduce_sum(x ** 2, 1) - math.log(2 * math.pi) + log_det


def nll(_, log_prob):
    return -log_prob


rng = np.random.default_rng(0)
u = rng.uniform(-1, 1, 8000)
data = np.stack([u, 0.6 * u ** 2 - 0.3 + rng.normal(0, 0.03, 8000)], 1).astype("float32")
flow = Flow()
flow.compile(keras.optimizers.Adam(1e-3, clipnorm=5.0), loss=nll)
h = flow.fit(data[:7000], np.zeros(7000), batch_size=100, epochs=10, verbose=2)
gauss = 0.5 * np.log(np.linalg.det(2 * np.pi * np.e * np.cov(data.T)))
print("test nll %.3f, of a fitted Gaussian %.3f" % (-flow.predict(data[7000:], verbose=0).mean(), gauss))
