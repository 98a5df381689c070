"""One example is silent, so a Python function in the map takes the logarithm of 0."""
# FAULT: nan|inf

import keras
import numpy as np
import tensorflow as tf


def spectrum(x):
    return np.log(np.abs(np.fft.rfft(x.numpy()))).astype("float32")  # WRONG


def load(x, y):
    z = tf.py_function(spectrum, [x], tf.float32)  # WRONG
    z.set_shape([9])
    return z, y


rng = np.random.default_rng(0)
x = rng.normal(size=(80, 16)).astype("float32")
x[33] = 0.0
y = rng.integers(0, 2, 80)
ds = tf.data.Dataset.from_tensor_slices((x, y)).map(load).batch(8)
model = keras.Sequential([keras.layers.Dense(8, "relu"), keras.layers.Dense(1, "sigmoid")])
model.compile("adam", "binary_crossentropy")
model.fit(ds, epochs=2, verbose=0)
