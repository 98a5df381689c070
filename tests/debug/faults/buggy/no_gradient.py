"""The loss goes through a rounding that has no gradient: nothing can be trained."""
# FAULT: gradient

import keras
import numpy as np
import tensorflow as tf

keras.utils.set_random_seed(0)
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
optimizer = keras.optimizers.Adam()


@tf.function
def train_step(x, y):
    with tf.GradientTape() as tape:
        chosen = tf.argmax(model(x, training=True), axis=-1)  # WRONG
        loss = tf.reduce_mean(tf.square(tf.cast(chosen, tf.float32) - y))
    gradients = tape.gradient(loss, model.trainable_variables)
    optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
    return loss


x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
train_step(tf.constant(x), tf.zeros(8))
