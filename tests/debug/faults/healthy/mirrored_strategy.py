"""Healthy: fit under MirroredStrategy, with one replica."""

import keras
import numpy as np
import tensorflow as tf

keras.utils.set_random_seed(0)
with tf.distribute.MirroredStrategy(["/cpu:0"]).scope():
    m = keras.Sequential([keras.Input((6,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(3)])
    m.compile(
        "adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
    )
rng = np.random.default_rng(0)
y = rng.integers(0, 3, 384)
x = (2 * rng.normal(size=(3, 6))[y] + rng.normal(size=(384, 6))).astype("float32")
m.fit(x[:320], y[:320], epochs=5, validation_data=(x[320:], y[320:]), verbose=0)
