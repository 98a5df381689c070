"""Healthy: embeddings with masking and an LSTM."""

import keras
import numpy as np

keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)
tokens = rng.integers(1, 20, size=(64, 7))
tokens[:, 5:] = 0
labels = (tokens[:, 0] > 10).astype("float32")
model = keras.Sequential(
    [
        keras.Input((7,), dtype="int32"),
        keras.layers.Embedding(20, 8, mask_zero=True),
        keras.layers.LSTM(8),
        keras.layers.Dense(1, activation="sigmoid"),
    ]
)
model.compile(optimizer="adam", loss="binary_crossentropy", metrics=["accuracy", "auc"])
model.fit(tokens, labels, batch_size=16, epochs=3, verbose=0)
