"""Mixture density network for an inverse problem with several answers; the likelihood loss passes through zero and goes negative."""
import numpy as np
import tensorflow as tf
import keras
from keras import layers

M = 5
keras.utils.set_random_seed(0)


def mdn_loss(y, params):
    logit, mu, log_s = tf.split(params, 3, axis=-1)
    log_s = tf.clip_by_value(log_s, -5.0, 3.0)
    comp = -0.5 * ((y - mu) / tf.exp(log_s)) ** 2 - log_s - 0.5 * np.log(2 * np.pi)
    return -tf.reduce_logsumexp(tf.nn.log_softmax(logit) + comp, axis=-1)


rng = np.random.default_rng(0)
y = rng.uniform(0, 1, (6000, 1))
x = y + 0.3 * np.sin(2 * np.pi * y) + rng.normal(0, 0.02, y.shape)
x, y = (2 * x - 1).astype("float32"), y.astype("float32")
model = keras.Sequential([
    keras.Input((1,)),
    layers.Dense(48, activation="tanh"),
    layers.Dense(48, activation="tanh"),
    layers.Dense(3 * M),
])
model.compile(keras.optimizers.Adam(3e-3), loss=mdn_loss)
hist = model.fit(x[:5000], y[:5000], epochs=25, batch_size=100, verbose=0)
print("nll by epoch", np.round(hist.history["loss"][::4], 3))
uniform = 0.0   # density of the targets alone is 1 on [0, 1]
print("test nll %.3f, without x %.3f" % (model.evaluate(x[5000:], y[5000:], verbose=0), uniform))
