"""Character GRU language model with output weights tied to the embedding; loss ends well above 0 as text has entropy."""
import numpy as np
import tensorflow as tf

WORDS = "the a cat dog bird sees chases likes red small old tree house and then runs sleeps".split()
rng = np.random.default_rng(0)
text = " ".join(rng.choice(WORDS, 6000))
chars = sorted(set(text))
ids = np.array([chars.index(c) for c in text], "int32")
T = 40


class CharModel(tf.keras.Model):
    def __init__(self, vocab, dim):
        super().__init__()
        self.embed = tf.keras.layers.Embedding(vocab, dim)
        self.rnn = tf.keras.layers.GRU(dim, return_sequences=True)
        self.bias = self.add_weight(shape=(vocab,), initializer="zeros", name="bias")

    def call(self, x):
        h = self.rnn(self.embed(x))
        return tf.matmul(h, self.embed.embeddings, transpose_b=True) + self.bias


n = (len(ids) - 1) // T
x, y = ids[:n * T].reshape(n, T), ids[1:n * T + 1].reshape(n, T)
cut = int(0.9 * n)
model = CharModel(len(chars), 64)
model.compile(optimizer=tf.keras.optimizers.Adam(5e-3, global_clipnorm=1.0),
              loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True))
model.fit(x[:cut], y[:cut], batch_size=32, epochs=10, verbose=2)
bits = model.evaluate(x[cut:], y[cut:], verbose=0)
freq = np.bincount(ids) / len(ids)
print("held-out nats per char %.3f, unigram %.3f" % (bits, -(freq * np.log(freq)).sum()))
