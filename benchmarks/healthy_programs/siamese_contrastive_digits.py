"""Siamese network with contrastive loss on pairs; the targets are same/different, outputs are distances."""
import numpy as np
import tensorflow as tf
from tensorflow.keras import layers, Model
from sklearn.datasets import load_digits

rng = np.random.default_rng(17)
X, y = load_digits(return_X_y=True)
X = (X / 16).astype("float32")


def pairs(X, y, n):
    a = rng.integers(0, len(X), n)
    same = rng.random(n) < 0.5
    b = np.array([rng.choice(np.flatnonzero((y == y[i]) == s)) for i, s in zip(a, same)])
    return [X[a], X[b]], same.astype("float32")[:, None]


def contrastive_loss(y_true, dist, margin=1.0):
    return tf.reduce_mean(y_true * tf.square(dist) + (1 - y_true) * tf.square(tf.maximum(margin - dist, 0)))


base_in = layers.Input((64,))
h = layers.Dense(64, activation="relu")(base_in)
base = Model(base_in, layers.Dense(16)(h))
left, right = layers.Input((64,)), layers.Input((64,))


def euclid(v):
    s = tf.reduce_sum(tf.square(v[0] - v[1]), axis=1, keepdims=True)
    return tf.sqrt(tf.maximum(s, 1e-7))


distance = layers.Lambda(euclid, output_shape=(1,))([base(left), base(right)])
siamese = Model([left, right], distance)
siamese.compile(loss=contrastive_loss, optimizer=tf.keras.optimizers.RMSprop())
px, py = pairs(X[:1400], y[:1400], 6000)
siamese.fit(px, py, batch_size=64, epochs=8, verbose=2)
tx, ty = pairs(X[1400:], y[1400:], 1000)
print("pair accuracy at 0.5: %.3f" % np.mean((siamese.predict(tx, verbose=0) < 0.5) == ty))
