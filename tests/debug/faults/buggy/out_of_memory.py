"""A pairwise tensor of some 4 PB is asked for."""
# FAULT: memory

import keras
import numpy as np
import tensorflow as tf


class Pairwise(keras.layers.Layer):
    def call(self, inputs):
        tiled = tf.tile(inputs, [1, 10_000_000])
        pairs = tiled[:, :, None] - tiled[:, None, :]  # WRONG
        return tf.reduce_sum(pairs, axis=-1)


model = keras.Sequential([keras.Input((4,)), Pairwise()])
model.compile(optimizer="adam", loss="mse")
model.predict(np.zeros((1, 4), "float32"), verbose=0)
