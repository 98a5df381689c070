"""Two-layer graph convolution on one dense graph, full batch, 5 % labelled nodes: each epoch is one step, other nodes are masked out."""
import numpy as np
import tensorflow as tf

rng = np.random.default_rng(1)
N, K = 600, 4
community = rng.integers(0, K, N)
p = np.where(community[:, None] == community[None], 0.04, 0.004)
A = np.triu(rng.random((N, N)) < p, 1).astype("float32")
A = A + A.T + np.eye(N, dtype="float32")
deg = A.sum(1)
A_hat = tf.constant(A / np.sqrt(deg[:, None] * deg[None]))
X = tf.constant((rng.normal(size=(N, 16)) + 0.6 * np.eye(K)[community] @ rng.normal(size=(K, 16))).astype("float32"))
train_mask = np.zeros(N, bool)
for k in range(K):
    train_mask[rng.choice(np.flatnonzero(community == k), 8, replace=False)] = True


class GraphConv(tf.keras.layers.Layer):
    def __init__(self, units, activation=None):
        super().__init__()
        self.dense = tf.keras.layers.Dense(units, use_bias=False)
        self.act = tf.keras.activations.get(activation)

    def call(self, x):
        return self.act(tf.matmul(A_hat, self.dense(x)))


class GCN(tf.keras.Model):
    def __init__(self):
        super().__init__()
        self.g1, self.g2 = GraphConv(32, "relu"), GraphConv(K)
        self.drop = tf.keras.layers.Dropout(0.5)

    def call(self, x, training=False):
        return self.g2(self.drop(self.g1(self.drop(x, training=training)), training=training))


model, opt = GCN(), tf.keras.optimizers.Adam(1e-2, weight_decay=5e-4)
labels, mask = tf.constant(community), tf.constant(train_mask)
model(X)


@tf.function
def epoch_step():
    with tf.GradientTape() as tape:
        logits = model(X, training=True)
        ce = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
        loss = tf.reduce_mean(tf.boolean_mask(ce, mask))
    opt.apply_gradients(zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables))
    return loss


for e in range(250):
    loss = epoch_step()
    if e % 50 == 0:
        print("epoch", e, float(loss))
pred = model(X).numpy().argmax(1)
print("accuracy of unlabelled nodes: %.3f" % (pred == community)[~train_mask].mean())
