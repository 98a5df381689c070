"""Matrix factorisation of 1-5 star ratings with user and item embeddings and biases; ids go to embeddings raw."""
import numpy as np
import keras
from keras import layers, ops

USERS, ITEMS = 300, 200


class MF(keras.Model):
    def __init__(self, mean, dim=8, **kw):
        super().__init__(**kw)
        reg = keras.regularizers.L2(2e-6)
        self.u = layers.Embedding(USERS, dim, embeddings_regularizer=reg)
        self.i = layers.Embedding(ITEMS, dim, embeddings_regularizer=reg)
        self.bu, self.bi = layers.Embedding(USERS, 1), layers.Embedding(ITEMS, 1)
        self.mean = mean

    def call(self, pair):
        user, item = pair[:, 0], pair[:, 1]
        dot = ops.sum(self.u(user) * self.i(item), axis=-1, keepdims=True)
        return self.mean + dot + self.bu(user) + self.bi(item)


rng = np.random.default_rng(3)
P, Q = rng.normal(0, 0.7, (USERS, 3)), rng.normal(0, 0.7, (ITEMS, 3))
bu, bi = rng.normal(0, 0.3, USERS), rng.normal(0, 0.5, ITEMS)
u, i = rng.integers(0, USERS, 24000), rng.integers(0, ITEMS, 24000)
stars = np.clip(np.round(3.4 + (P[u] * Q[i]).sum(1) + bu[u] + bi[i] + rng.normal(0, 0.3, 24000)), 1, 5)
X, y = np.stack([u, i], 1), stars.astype("float32")[:, None]
model = MF(float(y[:20000].mean()))
model.compile(keras.optimizers.Adam(5e-3), "mse", metrics=[keras.metrics.RootMeanSquaredError(name="rmse")])
model.fit(X[:20000], y[:20000], batch_size=128, epochs=10, validation_data=(X[20000:], y[20000:]), verbose=2)
print("rmse %.3f, standard deviation %.3f" % (model.evaluate(X[20000:], y[20000:], verbose=0)[1], y[20000:].std()))
