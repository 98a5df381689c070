"""A softmax written by hand, without subtracting the maximum, overflows on large logits."""
# FAULT: nan|inf

import keras
import numpy as np
import tensorflow as tf


def softmax(logits):
    weights = tf.exp(logits)  # WRONG
    return weights / tf.reduce_sum(weights, axis=-1, keepdims=True)


keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)
x = rng.normal(scale=600.0, size=(64, 10)).astype("float32")
y = rng.integers(0, 3, size=64)
model = keras.Sequential(
    [
        keras.Input((10,)),
        keras.layers.Dense(32, activation="relu"),
        keras.layers.Dense(3),
        keras.layers.Activation(softmax),
    ]
)
model.compile(optimizer="sgd", loss="sparse_categorical_crossentropy")
model.fit(x, y, batch_size=16, epochs=1, verbose=0)
