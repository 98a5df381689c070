"""Rows are divided by their sum, and some rows are all zero."""
# FAULT: nan

import keras
import numpy as np


class RowNormalise(keras.layers.Layer):
    def call(self, inputs):
        total = keras.ops.sum(inputs, axis=-1, keepdims=True)
        return inputs / total  # WRONG


keras.utils.set_random_seed(0)
counts = np.random.default_rng(0).integers(0, 5, size=(64, 6)).astype("float32")
counts[40] = 0.0
labels = (counts[:, 0] > 2).astype("float32")
inputs = keras.Input((6,))
hidden = keras.layers.Dense(8, activation="relu")(RowNormalise(name="shares")(inputs))
outputs = keras.layers.Dense(1, activation="sigmoid")(hidden)
model = keras.Model(inputs, outputs)
model.compile(optimizer="adam", loss="binary_crossentropy")
model.fit(counts, labels, batch_size=16, epochs=2, verbose=0, shuffle=False)
