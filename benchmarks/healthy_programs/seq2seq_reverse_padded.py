"""GRU encoder-decoder that reverses strings; padded positions of the target carry sample weight 0."""
import numpy as np
import tensorflow as tf

PAD, START, END = 0, 1, 2
V, T = 14, 8


def make(n, rng):
    src = np.zeros((n, T), "int32")
    dec_in = np.zeros((n, T + 1), "int32")
    tgt = np.zeros((n, T + 1), "int32")
    for i in range(n):
        k = rng.integers(3, T + 1)
        s = rng.integers(3, V, k)
        src[i, :k] = s
        tgt[i, :k], tgt[i, k] = s[::-1], END
        dec_in[i, 0], dec_in[i, 1:k + 1] = START, s[::-1]
    return src, dec_in, tgt


class Seq2Seq(tf.keras.Model):
    def __init__(self, units=64):
        super().__init__()
        self.emb = tf.keras.layers.Embedding(V, 24)
        self.enc = tf.keras.layers.GRU(units, return_state=True)
        self.dec = tf.keras.layers.GRU(units, return_sequences=True)
        self.out = tf.keras.layers.Dense(V)

    def call(self, inputs):
        src, dec = inputs
        # strings are fed end-aligned to the encoder by reversing the time axis
        _, state = self.enc(tf.reverse(self.emb(src), [1]))
        return self.out(self.dec(self.emb(dec), initial_state=state))


rng = np.random.default_rng(0)
tf.keras.utils.set_random_seed(0)
src, dec, tgt = make(4000, rng)
weights = (tgt != PAD).astype("float32")
model = Seq2Seq()
model.compile(optimizer=tf.keras.optimizers.Adam(8e-3, clipnorm=1.0),
              loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
              weighted_metrics=["accuracy"])
model.fit((src, dec), tgt, sample_weight=weights, batch_size=100, epochs=12, verbose=2)
s, d, t = make(400, rng)
p = model.predict((s, d), verbose=0).argmax(-1)
print("teacher-forced token accuracy %.3f (chance %.3f)" % ((p == t)[t != PAD].mean(), 1 / (V - 3)))
