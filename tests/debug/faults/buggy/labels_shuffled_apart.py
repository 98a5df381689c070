"""Inputs and labels are shuffled by two orders and belong no longer to each other."""
# FAULT: shuffled-apart
# CAUSE: shuffled apart

import keras
import numpy as np
import tensorflow as tf

keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)
y = rng.integers(0, 5, 2000)
x = (3 * rng.normal(size=(5, 10))[y] + rng.normal(size=(2000, 10))).astype("float32")
xs = tf.data.Dataset.from_tensor_slices(x).shuffle(2000, seed=1)
ys = tf.data.Dataset.from_tensor_slices(y).shuffle(2000, seed=2)
ds = tf.data.Dataset.zip((xs, ys)).batch(32)
model = keras.Sequential([keras.layers.Dense(16, "relu"), keras.layers.Dense(5, "softmax")])
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(ds, epochs=6, verbose=0)  # WRONG
