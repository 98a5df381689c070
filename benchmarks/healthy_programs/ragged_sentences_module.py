"""Sentences of unequal length as RaggedTensors, mean-pooled embeddings in a tf.Module; no padding at all."""
import numpy as np
import tensorflow as tf

rng = np.random.default_rng(6)
V = 500
polarity = rng.normal(0, 1, V)
sents = [rng.integers(0, V, rng.integers(5, 30)) for _ in range(4000)]
labels = np.array([float(polarity[s].mean() > 0) for s in sents], "float32")


class FastText(tf.Module):
    def __init__(self, dim=16, name=None):
        super().__init__(name=name)
        self.table = tf.Variable(tf.random.uniform((V, dim), -0.05, 0.05))
        self.w = tf.Variable(tf.random.normal((dim, 1), stddev=0.3))
        self.b = tf.Variable([0.0])

    def __call__(self, ragged):
        vec = tf.reduce_mean(tf.ragged.map_flat_values(tf.nn.embedding_lookup, self.table, ragged), axis=1)
        return tf.squeeze(vec @ self.w + self.b, -1)


model = FastText()
optimizer = tf.keras.optimizers.Adam(1e-2)
spec = [tf.RaggedTensorSpec([None, None], tf.int64, ragged_rank=1), tf.TensorSpec([None], tf.float32)]


@tf.function(input_signature=spec)
def train_step(r, y):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=y, logits=model(r)))
    grads = tape.gradient(loss, model.trainable_variables)
    optimizer.apply_gradients(zip(grads, model.trainable_variables))
    return loss


data = tf.data.Dataset.from_tensor_slices((tf.ragged.constant(sents[:3500], dtype=tf.int64), labels[:3500]))
for epoch in range(8):
    losses = [train_step(r, y).numpy() for r, y in data.shuffle(3500).batch(50)]
    print("epoch %d loss %.4f" % (epoch, np.mean(losses)))
pred = model(tf.ragged.constant(sents[3500:], dtype=tf.int64)).numpy() > 0
print("test accuracy %.3f" % np.mean(pred == (labels[3500:] > 0.5)))
