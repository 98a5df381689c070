"""An eager loop of one's own divides by a count that is 0 for one batch."""
# FAULT: nan|inf

import keras
import numpy as np
import tensorflow as tf

keras.utils.set_random_seed(0)
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
optimizer = keras.optimizers.Adam(0.01)
rng = np.random.default_rng(0)

for step in range(6):
    x = tf.constant(rng.normal(size=(8, 4)), tf.float32)
    y = tf.constant(rng.normal(size=(8, 1)), tf.float32)
    weights = tf.zeros((8, 1)) if step == 3 else tf.ones((8, 1))
    with tf.GradientTape() as tape:
        errors = tf.square(model(x, training=True) - y) * weights
        loss = tf.reduce_sum(errors) / tf.reduce_sum(weights)  # WRONG
    gradients = tape.gradient(loss, model.trainable_variables)
    optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
