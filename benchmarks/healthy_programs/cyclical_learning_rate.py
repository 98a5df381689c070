"""Triangular cyclical learning rate set in a batch callback between 1e-4 and 1e-2: the loss goes up and down with it."""
import numpy as np
from tensorflow import keras
from tensorflow.keras import layers


class CyclicLR(keras.callbacks.Callback):
    def __init__(self, low=1e-4, high=1e-2, half=150):
        super().__init__()
        self.low, self.high, self.half, self.it = low, high, half, 0

    def on_train_batch_begin(self, batch, logs=None):
        pos = abs((self.it % (2 * self.half)) / self.half - 1.0)
        self.model.optimizer.learning_rate = self.low + (self.high - self.low) * (1.0 - pos)
        self.it += 1


rng = np.random.default_rng(4)
X = rng.uniform(0, 1, (5000, 6)).astype("float32")
y = 10 * np.sin(np.pi * X[:, 0] * X[:, 1]) + 20 * (X[:, 2] - 0.5) ** 2 + 10 * X[:, 3] + 5 * X[:, 4] + rng.normal(0, 1, 5000)
y = (y - y[:4000].mean()) / y[:4000].std()
X = (X - 0.5) * 3.46

model = keras.Sequential([layers.Input((6,)), layers.Dense(64, activation="relu"), layers.Dense(64, activation="relu"), layers.Dense(1)])
model.compile(optimizer=keras.optimizers.Adam(), loss="mse")
model.fit(X[:4000], y[:4000], batch_size=50, epochs=15, callbacks=[CyclicLR()], validation_data=(X[4000:], y[4000:]), verbose=2)
print("test mse (variance 1): %.3f" % model.evaluate(X[4000:], y[4000:], verbose=0))
