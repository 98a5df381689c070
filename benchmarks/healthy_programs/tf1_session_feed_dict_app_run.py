"""TF1 style with placeholders, Session, feed_dict and tf.compat.v1.app.run; softmax regression of digits by gradient descent at 0.5."""
import numpy as np
import tensorflow.compat.v1 as tf
from sklearn.datasets import load_digits

tf.disable_eager_execution()


def main(_):
    digits = load_digits()
    images = digits.data / 16.0
    onehot = np.eye(10)[digits.target]

    x = tf.placeholder(tf.float32, [None, 64], name="x")
    y_ = tf.placeholder(tf.float32, [None, 10], name="y_")
    W = tf.Variable(tf.zeros([64, 10]))
    b = tf.Variable(tf.zeros([10]))
    y = tf.matmul(x, W) + b

    cross_entropy = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits_v2(labels=y_, logits=y))
    train_op = tf.train.GradientDescentOptimizer(0.5).minimize(cross_entropy)
    correct = tf.equal(tf.argmax(y, 1), tf.argmax(y_, 1))
    accuracy = tf.reduce_mean(tf.cast(correct, tf.float32))

    with tf.Session() as sess:
        sess.run(tf.global_variables_initializer())
        for i in range(1000):
            pick = np.random.randint(0, 1400, 50)
            _, loss = sess.run([train_op, cross_entropy], feed_dict={x: images[pick], y_: onehot[pick]})
            if i % 200 == 0:
                print(i, loss)
        print("test accuracy", sess.run(accuracy, feed_dict={x: images[1400:], y_: onehot[1400:]}))


if __name__ == "__main__":
    tf.app.run()
