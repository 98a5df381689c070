"""Two inputs, integer category ids through embeddings (ids up to 300, not to be scaled) and numbers through Normalization."""
import argparse

import numpy as np
import tensorflow as tf


def make(n, rng):
    shop = rng.integers(0, 300, (n, 1))
    weekday = rng.integers(0, 7, (n, 1))
    nums = np.stack([rng.gamma(2, 50, n), rng.uniform(900, 1100, n)], 1).astype("float32")
    g = np.random.default_rng(99)
    shop_fx, day_fx = g.normal(0, 1, 300), g.normal(0, 0.7, 7)
    z = shop_fx[shop[:, 0]] + day_fx[weekday[:, 0]] + (nums[:, 0] - 100) / 70 + rng.normal(0, 0.2, n)
    return {"shop": shop, "weekday": weekday, "nums": nums}, z.astype("float32")


def build(nums):
    shop = tf.keras.Input((1,), name="shop", dtype="int32")
    day = tf.keras.Input((1,), name="weekday", dtype="int32")
    num = tf.keras.Input((2,), name="nums")
    norm = tf.keras.layers.Normalization()
    norm.adapt(nums)
    parts = [
        tf.keras.layers.Flatten()(tf.keras.layers.Embedding(300, 8)(shop)),
        tf.keras.layers.Flatten()(tf.keras.layers.Embedding(7, 3)(day)),
        norm(num),
    ]
    h = tf.keras.layers.Dense(32, activation="relu")(tf.keras.layers.concatenate(parts))
    return tf.keras.Model([shop, day, num], tf.keras.layers.Dense(1)(h))


if __name__ == "__main__":
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("-n", type=int, default=8000)
    ap.add_argument("--epochs", type=int, default=10)
    a = ap.parse_args()
    rng = np.random.default_rng(1)
    x, y = make(a.n, rng)
    xt, yt = make(1000, rng)
    m = build(x["nums"])
    m.compile(tf.keras.optimizers.Adam(5e-3), "mse")
    m.fit(x, y, epochs=a.epochs, batch_size=64, verbose=2)
    p = m.predict(xt, verbose=0)[:, 0]
    print("R2 %.3f" % (1 - np.mean((p - yt) ** 2) / yt.var()))
