"""Poisson regression of hourly rentals; the Poisson loss drops the log-factorial, so it goes far below zero."""
from __future__ import annotations

import numpy as np
import keras
from keras import layers


def make_data(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    hour = rng.integers(0, 24, n)
    temp = rng.normal(15, 8, n)
    rain = rng.random(n) < 0.2
    rate = np.exp(1.2 + 1.2 * np.exp(-((hour - 17) / 3.0) ** 2) + 0.9 * np.exp(-((hour - 8) / 2.0) ** 2)
                  + 0.03 * temp - 0.8 * rain)
    x = np.stack([np.sin(hour * np.pi / 12), np.cos(hour * np.pi / 12), np.sin(hour * np.pi / 6),
                  np.cos(hour * np.pi / 6), (temp - 15) / 8, rain], 1)
    return x.astype("float32"), rng.poisson(rate).astype("float32")


def build() -> keras.Model:
    return keras.Sequential([
        layers.Input((6,)),
        layers.Dense(48, activation="gelu"),
        layers.Dense(1, activation="exponential"),
    ])


def deviance(y: np.ndarray, mu: np.ndarray) -> float:
    return float(2 * np.mean(np.where(y > 0, y * np.log(np.maximum(y, 1) / mu), 0) - (y - mu)))


if __name__ == "__main__":
    rng = np.random.default_rng(21)
    x, y = make_data(6000, rng)
    model = build()
    model.compile(optimizer=keras.optimizers.RMSprop(2e-3), loss=keras.losses.Poisson())
    model.fit(x[:5000], y[:5000], batch_size=64, epochs=15, verbose=2)
    mu = model.predict(x[5000:], verbose=0)[:, 0]
    print("deviance", round(deviance(y[5000:], mu), 3), "of constant model",
          round(deviance(y[5000:], np.full(1000, y[:5000].mean())), 3))
