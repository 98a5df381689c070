"""Adam(gradient_accumulation_steps=4) with batches of 8: weights change on every fourth step only."""
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_breast_cancer
from sklearn.preprocessing import StandardScaler

data = load_breast_cancer()
perm = np.random.default_rng(3).permutation(len(data.target))
X, y = data.data[perm], data.target[perm]
scaler = StandardScaler()
X_train, X_test = scaler.fit_transform(X[:440]), scaler.transform(X[440:])
y_train, y_test = y[:440], y[440:]

model = tf.keras.Sequential([
    tf.keras.layers.Input((30,)),
    tf.keras.layers.Dense(24, activation="relu"),
    tf.keras.layers.Dense(1),
])
opt = tf.keras.optimizers.Adam(learning_rate=4e-3, gradient_accumulation_steps=4)
model.compile(optimizer=opt, loss=tf.keras.losses.BinaryCrossentropy(from_logits=True),
              metrics=[tf.keras.metrics.BinaryAccuracy(threshold=0.0)])
model.fit(X_train, y_train, batch_size=8, epochs=16, verbose=2)
print("test", model.evaluate(X_test, y_test, verbose=0))
