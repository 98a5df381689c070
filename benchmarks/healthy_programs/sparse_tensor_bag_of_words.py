"""Bag-of-words as SparseTensor batches; nearly all entries are zero because vocabulary is large."""
import numpy as np
import tensorflow as tf
from scipy import sparse

VOCAB, N = 2000, 4000
rng = np.random.default_rng(41)
topic = rng.integers(0, 4, N)
base = rng.dirichlet(np.full(VOCAB, 0.05), 4) * 0.35 + rng.dirichlet(np.full(VOCAB, 0.3)) * 0.65
rows, cols = [], []
for i in range(N):
    words = np.unique(rng.choice(VOCAB, 40, p=base[topic[i]] / base[topic[i]].sum()))
    rows += [i] * len(words)
    cols += list(words)
X = sparse.csr_matrix((np.ones(len(rows), "float32"), (rows, cols)), (N, VOCAB))


def to_tensor(m):
    m = m.tocoo()
    return tf.sparse.SparseTensor(np.stack([m.row, m.col], 1).astype("int64"), m.data, m.shape)


w1 = tf.Variable(tf.random.normal((VOCAB, 32), stddev=0.15))
b1 = tf.Variable(tf.zeros(32))
w2 = tf.Variable(tf.random.normal((32, 4), stddev=0.2))
params = [w1, b1, w2]
opt = tf.keras.optimizers.Adam(2e-3)


def logits(xs):
    return tf.nn.relu(tf.sparse.sparse_dense_matmul(xs, w1) + b1) @ w2


@tf.function(reduce_retracing=True)
def step(xs, y):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits(xs)))
    opt.apply_gradients(zip(tape.gradient(loss, params), params))
    return loss


for epoch in range(6):
    order = rng.permutation(3200)
    losses = [float(step(to_tensor(X[order[i:i + 64]]), tf.constant(topic[order[i:i + 64]]))) for i in range(0, 3200, 64)]
    print("epoch", epoch, "loss", np.mean(losses))
print("test accuracy", np.mean(logits(to_tensor(X[3200:])).numpy().argmax(1) == topic[3200:]))
