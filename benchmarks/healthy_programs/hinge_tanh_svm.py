"""Hinge loss with targets -1/+1 and a tanh output, as hinge wants it; not a probability and not meant to be."""
import numpy as np
import tensorflow as tf
from sklearn.datasets import make_circles

X, y = make_circles(3000, noise=0.08, factor=0.5, random_state=9)
y = 2.0 * y.astype("float32")[:, None] - 1.0


def sign_accuracy(y_true, y_pred):
    return tf.reduce_mean(tf.cast(tf.equal(tf.sign(y_true), tf.sign(y_pred)), tf.float32))


inputs = tf.keras.layers.Input(shape=(2,), dtype="float32")
hidden = tf.keras.layers.Dense(32, activation="relu", kernel_initializer="he_uniform")(inputs)
output = tf.keras.layers.Dense(1, activation="tanh")(hidden)
model = tf.keras.models.Model(inputs, output)
model.compile(loss="hinge", optimizer=tf.keras.optimizers.SGD(learning_rate=0.05, momentum=0.9), metrics=[sign_accuracy])
model.fit(X[:2400], y[:2400], epochs=20, batch_size=64, validation_data=(X[2400:], y[2400:]), verbose=0)
print("hinge, sign accuracy:", model.evaluate(X[2400:], y[2400:], verbose=0))
