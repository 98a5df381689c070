"""Train, save weights, load into a second model compiled with optimizer=None that only evaluates."""
import os
import tempfile

import keras
import numpy as np
from sklearn.datasets import load_digits


def architecture():
    return keras.Sequential([
        keras.Input((64,)),
        keras.layers.Dense(48, activation="elu"),
        keras.layers.Dense(10, activation="softmax"),
    ])


def main():
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order] / 16.0, y[order]
    trainer = architecture()
    trainer.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
    trainer.fit(x[:1400], y[:1400], batch_size=32, epochs=10, verbose=2)
    with tempfile.TemporaryDirectory() as tmp:
        path = os.path.join(tmp, "digits.weights.h5")
        trainer.save_weights(path)
        server = architecture()
        server.load_weights(path)
    server.compile(optimizer=None, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    for i in range(1400, 1797, 100):
        print("chunk", i, server.evaluate(x[i:i + 100], y[i:i + 100], verbose=0))
    print("all", server.evaluate(x[1400:], y[1400:], verbose=0))


main()
