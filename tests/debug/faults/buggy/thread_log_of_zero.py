"""The step that takes the logarithm of 0 is traced and run in a thread of the program's own."""
# FAULT: inf|nan

import threading

import tensorflow as tf

w = tf.Variable([1.0, 2.0])
losses = []


@tf.function
def train(x):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.math.log(tf.nn.relu(x * w)))  # WRONG
    w.assign_sub(0.01 * tape.gradient(loss, w))
    return loss


def work():
    for i in range(5):
        losses.append(float(train(tf.constant([1.0 - 0.5 * i, 1.0]))))


thread = threading.Thread(target=work)
thread.start()
thread.join()
print(losses)
