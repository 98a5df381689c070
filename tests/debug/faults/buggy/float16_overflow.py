"""Mixed precision: an energy is summed in float16 and passes 65504."""
# FAULT: nan|inf

import keras
import numpy as np
import tensorflow as tf

keras.utils.set_random_seed(0)
keras.mixed_precision.set_global_policy("mixed_float16")


class Energy(keras.layers.Layer):
    def call(self, inputs):
        energy = tf.reduce_sum(tf.square(inputs), axis=-1, keepdims=True)  # WRONG
        return tf.math.log1p(energy) * inputs


rng = np.random.default_rng(0)
x = rng.normal(scale=200.0, size=(32, 16)).astype("float32")
y = np.ones((32, 1), "float32")
model = keras.Sequential(
    [
        keras.Input((16,)),
        keras.layers.Dense(64),
        Energy(),
        keras.layers.Dense(1, dtype="float32", activation=tf.math.softplus),
        keras.layers.Lambda(lambda z: z, dtype="float32"),
    ]
)
model.compile(optimizer="sgd", loss=lambda y_true, y_pred: tf.reduce_mean((y_pred - y_true) ** 2))
model.fit(x, y, batch_size=8, epochs=1, verbose=0)
