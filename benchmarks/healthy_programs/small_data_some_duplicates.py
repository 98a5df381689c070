"""Small wine data with a few repeated rows over train and validation; validation_split on shuffled data, SELU and AlphaDropout."""
import numpy as np
import tensorflow as tf
from tensorflow.keras.layers import AlphaDropout, Dense, Input
from sklearn.datasets import load_wine

X, y = load_wine(return_X_y=True)
rng = np.random.default_rng(5)
p = rng.permutation(len(X))
X, y = X[p], y[p]
X = np.concatenate([X, X[:6]])                   # six bottles were entered twice
y = np.concatenate([y, y[:6]])
p = rng.permutation(len(X))
X, y = X[p], y[p]
X = (X - X.mean(0)) / X.std(0)
Y = tf.keras.utils.to_categorical(y, 3)

m = tf.keras.Sequential()
m.add(Input((13,)))
for _ in range(3):
    m.add(Dense(32, activation="selu", kernel_initializer="lecun_normal"))
    m.add(AlphaDropout(0.1))
m.add(Dense(3, activation="softmax"))
m.compile(optimizer=tf.keras.optimizers.Adam(1e-3), loss="categorical_crossentropy", metrics=["accuracy"])
h = m.fit(X, Y, validation_split=0.25, epochs=30, batch_size=16, verbose=0)
print("epochs", len(h.epoch), "val accuracy", h.history["val_accuracy"][-1], "val loss", h.history["val_loss"][-1])
