"""A custom gradient divides by the forward value, which is 0 for inactive units."""
# FAULT: nan|inf

import keras
import numpy as np
import tensorflow as tf


@tf.custom_gradient
def gate(x):
    value = tf.nn.relu(x)

    def grad(upstream):
        return upstream * x / value  # WRONG

    return value, grad


class Gate(keras.layers.Layer):
    def call(self, inputs):
        return gate(inputs)


keras.utils.set_random_seed(0)
x = np.random.default_rng(0).normal(size=(32, 5)).astype("float32")
y = np.zeros((32, 1), "float32")
model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(8), Gate(), keras.layers.Dense(1)])
model.compile(optimizer="sgd", loss="mse")
model.fit(x, y, batch_size=8, epochs=1, verbose=0)
