"""The gradient of sqrt at exactly 0 is infinite; the loss itself stays finite."""
# FAULT: nan|inf

import keras
import numpy as np
import tensorflow as tf


class Distance(keras.layers.Layer):
    def call(self, pair):
        left, right = pair
        squared = tf.reduce_sum(tf.square(left - right), axis=-1, keepdims=True)
        return tf.sqrt(squared)  # WRONG


keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)
left, right = rng.normal(size=(2, 48, 6)).astype("float32")
right[30] = left[30]
left_input, right_input = keras.Input((6,)), keras.Input((6,))
encoder = keras.layers.Dense(4)
distance = Distance()([encoder(left_input), encoder(right_input)])
model = keras.Model([left_input, right_input], distance)
model.compile(optimizer="sgd", loss="mae")
model.fit([left, right], np.ones((48, 1)), batch_size=12, epochs=1, shuffle=False, verbose=0)
