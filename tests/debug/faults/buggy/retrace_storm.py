"""A Python number as argument makes tf.function trace anew at each step."""
# FAULT: retrac
# CAUSE: retrac|trac

import tensorflow as tf

weights = tf.Variable(tf.ones((4, 1)))


@tf.function  # WRONG
def train_step(x, learning_rate):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(tf.matmul(x, weights)))
    weights.assign_sub(learning_rate * tape.gradient(loss, weights))
    return loss


for step in range(12):
    train_step(tf.ones((8, 4)), 0.1 / (1 + step))
