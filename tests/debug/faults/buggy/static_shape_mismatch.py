"""A layer multiplies matrices whose inner dimensions differ."""
# FAULT: shape

import keras
import numpy as np
import tensorflow as tf


class Bilinear(keras.layers.Layer):
    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(12, 4), name="kernel")

    def call(self, inputs):
        return tf.matmul(inputs, self.kernel)  # WRONG


x = np.zeros((16, 10), "float32")
model = keras.Sequential([keras.Input((10,)), Bilinear(), keras.layers.Dense(1)])
model.compile(optimizer="adam", loss="mse")
model.fit(x, np.zeros((16, 1)), epochs=1, verbose=0)
