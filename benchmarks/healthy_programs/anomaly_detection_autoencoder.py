"""Anomaly detection: autoencoder trained on normal ECG-like curves only; the loss on anomalies must stay high."""
import numpy as np
import tensorflow as tf
from tensorflow.keras import layers, losses
from tensorflow.keras.models import Model
from sklearn.metrics import roc_auc_score


class AnomalyDetector(Model):
    def __init__(self):
        super(AnomalyDetector, self).__init__()
        self.encoder = tf.keras.Sequential([layers.Dense(32, activation="relu"), layers.Dense(8)])
        self.decoder = tf.keras.Sequential([layers.Dense(32, activation="relu"), layers.Dense(80, activation="sigmoid")])

    def call(self, x):
        encoded = self.encoder(x)
        decoded = self.decoder(encoded)
        return decoded


def beats(n, broken, rng):
    t = np.linspace(0, 1, 80)
    c = 0.5 + rng.normal(0, 0.03, (n, 1))
    peak = rng.uniform(0.8, 1.2, (n, 1)) * np.exp(-((t - c) / 0.03) ** 2)
    wave = rng.uniform(0.2, 0.3, (n, 1)) * np.exp(-((t - c - 0.22) / 0.06) ** 2)
    if broken:
        wave = -wave
    return peak + wave + 0.02 * rng.normal(size=(n, 80))


rng = np.random.default_rng(10)
train, good, bad = beats(3000, False, rng), beats(500, False, rng), beats(100, True, rng)
lo, hi = train.min(), train.max()
scale = lambda a: ((a - lo) / (hi - lo)).astype("float32")
autoencoder = AnomalyDetector()
autoencoder.compile(optimizer='adam', loss='mae')
autoencoder.fit(scale(train), scale(train), epochs=15, batch_size=64, validation_data=(scale(good), scale(good)), verbose=0)
score = lambda a: losses.mae(scale(a), autoencoder(scale(a))).numpy()
auc = roc_auc_score([0] * 500 + [1] * 100, np.concatenate([score(good), score(bad)]))
print("error good %.4f, bad %.4f, AUC %.3f" % (score(good).mean(), score(bad).mean(), auc))
