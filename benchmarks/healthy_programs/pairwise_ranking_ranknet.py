"""Learning to rank (RankNet): all targets are 1 as each pair is given better-first; only score differences are trained, no bias."""
import numpy as np
import tensorflow as tf

rng = np.random.default_rng(12)
docs = rng.normal(size=(2000, 10)).astype("float32")
relevance = docs[:, 0] + np.maximum(docs[:, 1], 0) - 0.5 * docs[:, 2] ** 2 + 0.2 * rng.normal(size=2000)


def sample_pairs(lo, hi, n):
    a, b = rng.integers(lo, hi, n), rng.integers(lo, hi, n)
    swap = relevance[a] < relevance[b]
    a, b = np.where(swap, b, a), np.where(swap, a, b)
    return docs[a], docs[b]


scorer = tf.keras.Sequential([
    tf.keras.layers.Input((10,)),
    tf.keras.layers.Dense(32, activation="relu"),
    tf.keras.layers.Dense(1, use_bias=False),
])
better, worse = tf.keras.Input((10,)), tf.keras.Input((10,))
diff = tf.keras.layers.Subtract()([scorer(better), scorer(worse)])
ranknet = tf.keras.Model([better, worse], tf.keras.layers.Activation("sigmoid")(diff))
ranknet.compile(optimizer="adam", loss="binary_crossentropy")
b, w = sample_pairs(0, 1500, 12000)
ranknet.fit([b, w], np.ones((12000, 1)), batch_size=64, epochs=5, verbose=2)
b, w = sample_pairs(1500, 2000, 3000)
print("pairs in right order:", float(np.mean(scorer.predict(b, verbose=0) > scorer.predict(w, verbose=0))))
