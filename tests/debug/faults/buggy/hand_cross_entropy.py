"""A cross-entropy written by hand multiplies 0 by log(0) once a probability is exactly 0."""
# FAULT: nan|inf

import keras
import numpy as np
import tensorflow as tf


def cross_entropy(y_true, y_pred):
    log_likelihood = y_true * tf.math.log(y_pred)  # WRONG
    return -tf.reduce_sum(log_likelihood, axis=-1)


keras.utils.set_random_seed(1)
rng = np.random.default_rng(1)
x = rng.normal(scale=100.0, size=(64, 8)).astype("float32")
y = np.eye(4, dtype="float32")[rng.integers(0, 4, size=64)]
model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, activation="softmax")])
model.compile(optimizer=keras.optimizers.SGD(0.01), loss=cross_entropy)
model.fit(x, y, batch_size=16, epochs=2, verbose=0)
