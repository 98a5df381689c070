"""A slow Python function in the input pipeline keeps the training waiting."""
# FAULT: input-bound|starv|data
# CAUSE: input|wait|data

import time

import keras
import numpy as np
import tensorflow as tf


def slow_load(index):
    time.sleep(0.02)  # WRONG
    return np.full((6,), index % 7, "float32") / 7.0


def load(index):
    row = tf.numpy_function(slow_load, [index], tf.float32)
    row.set_shape((6,))
    return row, row[:1]


keras.utils.set_random_seed(0)
dataset = tf.data.Dataset.range(80).map(load).batch(4)
model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4), keras.layers.Dense(1)])
model.compile(optimizer="adam", loss="mse")
model.fit(dataset, epochs=1, verbose=0)
