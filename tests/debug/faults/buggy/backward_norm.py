"""tf.norm of a zero vector has no finite gradient; the forward pass is healthy."""
# FAULT: nan|inf

import keras
import numpy as np
import tensorflow as tf


def unit_penalty(y_true, y_pred):
    lengths = tf.norm(y_pred - y_true, axis=-1)  # WRONG
    return tf.reduce_mean(lengths)


keras.utils.set_random_seed(0)
x = np.random.default_rng(0).normal(size=(32, 5)).astype("float32")
x[3] = 0.0
y = np.zeros((32, 3), "float32")
model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])
model.compile(optimizer="adam", loss=unit_penalty)
model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
