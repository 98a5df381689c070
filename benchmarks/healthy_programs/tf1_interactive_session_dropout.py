"""TF1 InteractiveSession, op.run() and .eval(), keep-prob placeholder of 0.5 while training; one-hidden-layer net."""
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_breast_cancer

tf1 = tf.compat.v1
tf1.disable_eager_execution()
tf1.set_random_seed(1)
np.random.seed(1)

X, t = load_breast_cancer(return_X_y=True)
p = np.random.permutation(len(X))
X, t = X[p], t[p].reshape(-1, 1)
X = (X - X[:450].mean(0)) / X[:450].std(0)


def weight(shape):
    return tf1.Variable(tf1.truncated_normal(shape, stddev=0.1))


x = tf1.placeholder(tf.float32, [None, 30])
y = tf1.placeholder(tf.float32, [None, 1])
keep = tf1.placeholder(tf.float32)
h = tf.nn.relu(tf.matmul(x, weight([30, 40])) + tf1.Variable(tf.constant(0.1, shape=[40])))
h = tf1.nn.dropout(h, rate=1 - keep)
logit = tf.matmul(h, weight([40, 1])) + tf1.Variable(tf.zeros([1]))
loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=y, logits=logit))
step = tf1.train.AdamOptimizer(1e-3).minimize(loss)
acc = tf.reduce_mean(tf.cast(tf.equal(logit > 0, y > 0.5), tf.float32))

sess = tf1.InteractiveSession()
tf1.global_variables_initializer().run()
for i in range(1200):
    k = np.random.choice(450, 32)
    step.run(feed_dict={x: X[k], y: t[k], keep: 0.5})
    if i % 300 == 0:
        print("step", i, "loss", loss.eval({x: X[:450], y: t[:450], keep: 1.0}))
print("test accuracy", acc.eval({x: X[450:], y: t[450:], keep: 1.0}))
sess.close()
