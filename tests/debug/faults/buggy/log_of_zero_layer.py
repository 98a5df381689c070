"""A layer takes the logarithm of a ReLU's output, which is 0 for half of its units."""
# FAULT: nan|inf

import keras
import numpy as np
import tensorflow as tf


class LogActivation(keras.layers.Layer):
    def call(self, inputs):
        positive = tf.nn.relu(inputs)
        return tf.math.log(positive)  # WRONG


keras.utils.set_random_seed(0)
x = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
y = x.sum(axis=1, keepdims=True)
model = keras.Sequential(
    [keras.Input((8,)), keras.layers.Dense(16), LogActivation(), keras.layers.Dense(1)]
)
model.compile(optimizer="adam", loss="mse")
model.fit(x, y, batch_size=16, epochs=2, verbose=0)
