"""A tensor that only lives while a function is traced is kept in a list and used later."""
# FAULT: leaked-tensor

import tensorflow as tf

history = []
w = tf.Variable(2.0)


@tf.function
def train(x):
    loss = tf.square(w * x - 1.0)
    history.append(loss)  # WRONG
    return loss


@tf.function
def summary():
    return tf.add_n(history)  # WRONG


for i in range(3):
    train(tf.constant(float(i)))
print(summary())
