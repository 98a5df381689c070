"""Denoising autoencoder on [0,1] pixels with sigmoid and BCE: the loss levels out near 0.3 as grey pixels have entropy of their own."""
import numpy as np
from tensorflow import keras
from sklearn.datasets import load_digits

rng = np.random.default_rng(0)
clean = (load_digits().images / 16.0).astype("float32")[..., np.newaxis]
noisy = np.clip(clean + rng.normal(0, 0.3, clean.shape), 0, 1).astype("float32")

L = keras.layers
model = keras.Sequential([
    L.Input((8, 8, 1)),
    L.Conv2D(16, 3, activation="relu", padding="same"),
    L.Conv2D(16, 3, activation="relu", padding="same", strides=2),
    L.Conv2D(24, 3, activation="relu", padding="same"),
    L.UpSampling2D(2),
    L.Conv2D(16, 3, activation="relu", padding="same"),
    L.Conv2D(1, 3, activation="sigmoid", padding="same"),
])
model.compile(optimizer=keras.optimizers.Nadam(2e-3), loss=keras.losses.BinaryCrossentropy())
model.fit(noisy[:1500], clean[:1500], epochs=15, batch_size=50,
          validation_data=(noisy[1500:], clean[1500:]), verbose=2)
out = model.predict(noisy[1500:], verbose=0)
print("mse noisy %.4f, denoised %.4f" % (np.mean((noisy[1500:] - clean[1500:]) ** 2), np.mean((out - clean[1500:]) ** 2)))
