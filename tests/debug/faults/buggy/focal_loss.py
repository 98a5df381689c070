"""A binary focal loss takes log(1 - p) of a saturated sigmoid."""
# FAULT: nan|inf

import keras
import numpy as np
import tensorflow as tf


class FocalLoss(keras.losses.Loss):
    def call(self, y_true, y_pred):
        positive = y_true * (1.0 - y_pred) ** 2.0 * tf.math.log(y_pred + 1e-7)
        negative = (1.0 - y_true) * y_pred**2.0 * tf.math.log(1.0 - y_pred)  # WRONG
        return -tf.reduce_mean(positive + negative, axis=-1)


keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)
x = rng.uniform(20.0, 60.0, size=(48, 4)).astype("float32")
y = (rng.uniform(size=(48, 1)) > 0.5).astype("float32")
model = keras.Sequential(
    [
        keras.Input((4,)),
        keras.layers.Dense(1, activation="sigmoid", kernel_initializer="ones"),
    ]
)
model.compile(optimizer="sgd", loss=FocalLoss())
model.fit(x, y, batch_size=12, epochs=1, verbose=0)
