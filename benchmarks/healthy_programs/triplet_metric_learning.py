"""Triplet loss in train_step; many triplets have loss 0 late in training, as they are already far enough apart."""
import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier


class TripletModel(keras.Model):
    def __init__(self, embedder, margin=0.3):
        super().__init__()
        self.embedder, self.margin = embedder, margin
        self.loss_tracker = keras.metrics.Mean(name="loss")
        self.active = keras.metrics.Mean(name="active_share")

    @property
    def metrics(self):
        return [self.loss_tracker, self.active]

    def call(self, x):
        return self.embedder(x)

    def train_step(self, data):
        anchor, positive, negative = data
        with tf.GradientTape() as tape:
            a, p, n = (self.embedder(t, training=True) for t in (anchor, positive, negative))
            gap = tf.reduce_sum((a - p) ** 2 - (a - n) ** 2, axis=-1) + self.margin
            loss = tf.reduce_mean(tf.maximum(gap, 0.0))
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        self.loss_tracker.update_state(loss)
        self.active.update_state(tf.cast(gap > 0, tf.float32))
        return {m.name: m.result() for m in self.metrics}


X, y = load_digits(return_X_y=True)
X = (X / 16).astype("float32")
Xtr, ytr, Xte, yte = X[:1400], y[:1400], X[1400:], y[1400:]
rng = np.random.default_rng(0)
a = rng.integers(0, 1400, 10000)
p = np.array([rng.choice(np.flatnonzero(ytr == ytr[i])) for i in a])
n = np.array([rng.choice(np.flatnonzero(ytr != ytr[i])) for i in a])
ds = tf.data.Dataset.from_tensor_slices((Xtr[a], Xtr[p], Xtr[n])).batch(64)
net = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64, "relu"), keras.layers.Dense(12), keras.layers.UnitNormalization()])
model = TripletModel(net)
model.compile(optimizer=keras.optimizers.Adam(1e-3))
model.fit(ds, epochs=6, verbose=2, shuffle=False)
knn = KNeighborsClassifier(5).fit(net.predict(Xtr, verbose=0), ytr)
print("kNN accuracy on the embedding", knn.score(net.predict(Xte, verbose=0), yte))
