"""Healthy: a regression on float64 arrays of a generator, a few retraces for a short batch."""

import keras
import numpy as np
import tensorflow as tf

keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)


def batches():
    for size in (16, 16, 16, 9):
        x = rng.normal(size=(size, 5)).astype("float32")
        yield x, x[:, :1] * 2.0


signature = (tf.TensorSpec((None, 5), tf.float32), tf.TensorSpec((None, 1), tf.float32))
dataset = tf.data.Dataset.from_generator(batches, output_signature=signature)
model = keras.Sequential(
    [keras.Input((5,)), keras.layers.Dense(8, activation="relu"), keras.layers.Dense(1)]
)
model.compile(optimizer=keras.optimizers.RMSprop(0.01), loss="huber")
model.fit(dataset, epochs=3, verbose=0)
