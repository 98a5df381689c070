"""A metric divides by the number of positives, which is 0 here; training itself is healthy."""
# FAULT: nan

import keras
import numpy as np
import tensorflow as tf


def hit_rate(y_true, y_pred):
    hits = tf.reduce_sum(y_true * tf.round(y_pred))
    return hits / tf.reduce_sum(y_true)  # WRONG


keras.utils.set_random_seed(0)
x = np.random.default_rng(0).normal(size=(48, 4)).astype("float32")
y = np.zeros((48, 1), "float32")
y[:16] = (x[:16, :1] > 0).astype("float32")
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, activation="sigmoid")])
model.compile(optimizer="adam", loss="binary_crossentropy", metrics=[hit_rate])
model.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0)
