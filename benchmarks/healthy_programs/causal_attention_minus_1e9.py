"""Tiny causal transformer; scores above the diagonal get -1e9 before softmax, so huge negative activations are intended."""
import math

import keras
import numpy as np
from keras import layers, ops

keras.utils.set_random_seed(10)


class CausalSelfAttention(layers.Layer):
    def __init__(self, dim, heads, **kwargs):
        super().__init__(**kwargs)
        self.dim, self.heads = dim, heads
        self.qkv = layers.Dense(3 * dim)
        self.proj = layers.Dense(dim)

    def call(self, x):
        t = x.shape[1]
        q, k, v = ops.split(self.qkv(x), 3, axis=-1)
        shape = (-1, t, self.heads, self.dim // self.heads)
        q, k, v = (ops.transpose(ops.reshape(a, shape), (0, 2, 1, 3)) for a in (q, k, v))
        score = ops.matmul(q, ops.transpose(k, (0, 1, 3, 2))) / math.sqrt(shape[-1])
        mask = np.triu(np.ones((t, t), "float32"), 1) * -1e9
        att = ops.softmax(score + mask, axis=-1)
        return self.proj(ops.reshape(ops.transpose(ops.matmul(att, v), (0, 2, 1, 3)), (-1, t, self.dim)))


class Positions(layers.Layer):
    def build(self, shape):
        self.table = self.add_weight(shape=shape[1:], initializer=keras.initializers.RandomNormal(stddev=0.02))

    def call(self, x):
        return x + self.table


def build(vocab, t, dim=32, depth=2):
    ids = keras.Input((t,), dtype="int32")
    x = Positions()(layers.Embedding(vocab, dim)(ids))
    for _ in range(depth):
        x = x + CausalSelfAttention(dim, 2)(layers.LayerNormalization()(x))
        h = layers.Dense(2 * dim, activation="gelu")(layers.LayerNormalization()(x))
        x = x + layers.Dense(dim)(h)
    return keras.Model(ids, layers.Dense(vocab)(layers.LayerNormalization()(x)))


rng = np.random.default_rng(10)
half = rng.integers(0, 10, (3000, 6))
full = np.concatenate([half, half], 1)          # the second half repeats the first
x, y = full[:, :-1], full[:, 1:]
model = build(10, 11)
model.compile(keras.optimizers.Adam(3e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
model.fit(x[:2700], y[:2700], batch_size=64, epochs=10, verbose=2)
p = model.predict(x[2700:], verbose=0).argmax(-1)
print("accuracy on the repeated half %.3f, chance 0.1" % (p == y[2700:])[:, 5:].mean())
