"""An attention mask hides every key of an empty sequence, so its softmax is 0/0."""
# FAULT: nan

import keras
import numpy as np
import tensorflow as tf


class PooledAttention(keras.layers.Layer):
    def build(self, input_shape):
        self.score = self.add_weight(shape=(input_shape[-1], 1), name="score")

    def call(self, inputs):
        scores = tf.squeeze(tf.matmul(inputs, self.score), -1)
        padding = tf.reduce_all(tf.equal(inputs, 0.0), axis=-1)
        scores = tf.where(padding, float("-inf"), scores)
        weights = tf.nn.softmax(scores)  # WRONG
        return tf.einsum("bt,btd->bd", weights, inputs)


keras.utils.set_random_seed(0)
x = np.random.default_rng(0).normal(size=(32, 5, 4)).astype("float32")
x[:, 3:] = 0.0
x[20] = 0.0
y = np.ones((32, 1), "float32")
model = keras.Sequential([keras.Input((5, 4)), PooledAttention(), keras.layers.Dense(1)])
model.compile(optimizer="adam", loss="mse")
model.fit(x, y, batch_size=8, epochs=1, shuffle=False, verbose=0)
