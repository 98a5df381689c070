"""Variables of TF1 (references) in an InteractiveSession, and a log of exactly 0."""

# FAULT: inf|nan
import numpy as np
import tensorflow.compat.v1 as tf

tf.disable_v2_behavior()
rows = np.random.RandomState(3).randint(0, 2, (64, 5)).astype("float32")
session = tf.InteractiveSession()
x = tf.placeholder(tf.float32, [None, 5])
weights = tf.Variable(tf.constant([[-1.0], [1.0], [1.0], [-1.0], [1.0]]))
chance = tf.nn.relu(tf.matmul(x, weights))
loss = -tf.reduce_mean(tf.log(chance))  # WRONG
train = tf.train.GradientDescentOptimizer(0.1).minimize(loss)
session.run(tf.global_variables_initializer())
for _ in range(20):
    train.run({x: rows})
    print(loss.eval({x: rows}))
