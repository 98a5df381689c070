"""A reshape assumes a batch of 8, and the last batch holds 4: only the running graph can tell."""
# FAULT: shape

import keras
import numpy as np
import tensorflow as tf


class Regroup(keras.layers.Layer):
    def call(self, inputs):
        pairs = tf.reshape(inputs, (8, 3, 2))  # WRONG
        return tf.reduce_sum(pairs, axis=-1)


keras.utils.set_random_seed(0)
x = np.random.default_rng(0).normal(size=(20, 6)).astype("float32")
model = keras.Sequential([keras.Input((6,)), Regroup(), keras.layers.Dense(1)])
model.compile(optimizer="adam", loss="mse")
dataset = tf.data.Dataset.from_tensor_slices((x, x[:, :1])).batch(8)
model.fit(dataset, epochs=1, verbose=0)
