"""The block hands training=False to its normalisation, whose statistics then never move."""
# FAULT: batchnorm
# CAUSE: training=False|training=True|statistic

import keras
import numpy as np


class Block(keras.layers.Layer):
    def __init__(self, filters, **kw):
        super().__init__(**kw)
        self.conv = keras.layers.Conv2D(filters, 3, padding="same")
        self.norm = keras.layers.BatchNormalization()  # WRONG

    def call(self, x):
        return keras.ops.relu(self.norm(self.conv(x), training=False))  # WRONG


keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)
y = rng.integers(0, 2, 256)
x = (rng.random((256, 12, 12, 1)) + y[:, None, None, None]).astype("float32")
model = keras.Sequential(
    [
        Block(8),
        Block(8),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(2, activation="softmax"),
    ]
)
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(x, y, epochs=4, verbose=0)
