"""A loop of one's own over a tf.function takes the logarithm of a difference."""
# FAULT: nan

import numpy as np
import tensorflow as tf

tf.random.set_seed(0)
weights = tf.Variable(tf.random.normal((4, 1)), name="weights")
optimizer = tf.keras.optimizers.SGD(0.1)


def log_ratio(prediction, target):
    margin = prediction - target
    return tf.math.log(margin)  # WRONG


@tf.function
def train_step(x, y):
    with tf.GradientTape() as tape:
        prediction = tf.matmul(x, weights)
        loss = tf.reduce_mean(log_ratio(prediction, y) ** 2)
    gradient = tape.gradient(loss, weights)
    optimizer.apply_gradients([(gradient, weights)])
    return loss


rng = np.random.default_rng(0)
for _ in range(4):
    batch = tf.constant(rng.normal(size=(8, 4)), tf.float32)
    train_step(batch, tf.zeros((8, 1)))
