"""A third of the labels is unknown (filled with 0) and has sample_weight 0; sorted data, shuffled by fit."""
import numpy as np
import tensorflow as tf
from sklearn.datasets import make_blobs

X, y = make_blobs(n_samples=4500, centers=6, cluster_std=1.4, n_features=4, random_state=8)
X = (X / 10.0).astype('float32')
rng = np.random.RandomState(0)
test = rng.rand(len(X)) < 0.2
X_train, y_train, X_test, y_test = X[~test], y[~test], X[test], y[test]
order = np.argsort(y_train, kind='stable')       # sorted by class; fit(shuffle=True) mixes it
X_train, y_train = X_train[order], y_train[order].copy()
known = rng.rand(len(y_train)) > 0.33
y_train[~known] = 0
w = known.astype('float32')

model = tf.keras.models.Sequential([
    tf.keras.layers.Input((4,)),
    tf.keras.layers.Dense(32, activation='relu'),
    tf.keras.layers.Dense(6, activation='softmax')])
model.compile(optimizer=tf.keras.optimizers.Adam(3e-3), loss='sparse_categorical_crossentropy', weighted_metrics=['accuracy'])
model.fit(X_train, y_train, sample_weight=w, shuffle=True, epochs=10, batch_size=64, verbose=2)
pred = model.predict(X_test, verbose=0).argmax(axis=1)
print('test accuracy', (pred == y_test).mean())
