"""Integer positions are added to float features."""
# FAULT: dtype

import keras
import numpy as np
import tensorflow as tf


class AddPosition(keras.layers.Layer):
    def call(self, inputs):
        positions = tf.range(tf.shape(inputs)[1])
        return inputs + positions  # WRONG


model = keras.Sequential([keras.Input((6,)), AddPosition(), keras.layers.Dense(1)])
model.compile(optimizer="adam", loss="mse")
model.fit(np.zeros((8, 6), "float32"), np.zeros((8, 1)), epochs=1, verbose=0)
