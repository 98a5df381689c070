"""Contrastive learning with temperature 0.2 over two noisy views; the loss starts near log(2N-1) and ends well above 0."""
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

tf.random.set_seed(4)
X, y = load_digits(return_X_y=True)
order = np.random.RandomState(0).permutation(len(y))
X, y = X[order], y[order]
X = tf.constant((X / 16).astype("float32"))
encoder = tf.keras.Sequential([tf.keras.layers.Input((64,)), tf.keras.layers.Dense(128, "relu"), tf.keras.layers.Dense(32)])
head = tf.keras.Sequential([tf.keras.layers.Input((32,)), tf.keras.layers.ReLU(), tf.keras.layers.Dense(16)])
opt = tf.keras.optimizers.Adam(1e-3)
variables = encoder.trainable_variables + head.trainable_variables


def view(x):
    img = tf.reshape(x, (-1, 8, 8, 1))
    img = tf.image.random_crop(tf.pad(img, [[0, 0], [1, 1], [1, 1], [0, 0]]), tf.shape(img))
    img *= tf.cast(tf.random.uniform(tf.shape(img)) > 0.1, tf.float32)
    return tf.reshape(img, (-1, 64))


@tf.function
def step(x, temperature=0.2):
    n = tf.shape(x)[0]
    with tf.GradientTape() as tape:
        z = tf.math.l2_normalize(head(encoder(tf.concat([view(x), view(x)], 0))), axis=1)
        sim = tf.matmul(z, z, transpose_b=True) / temperature
        sim = tf.linalg.set_diag(sim, tf.fill([2 * n], -1e9))
        target = tf.concat([tf.range(n) + n, tf.range(n)], 0)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=target, logits=sim))
    opt.apply_gradients(zip(tape.gradient(loss, variables), variables))
    return loss


for i in range(1200):
    idx = np.random.randint(0, 1400, 128)
    loss = step(tf.gather(X, idx))
    if i % 200 == 0:
        print("step %d loss %.3f" % (i, loss))
feats = encoder(X).numpy()
probe = LogisticRegression(max_iter=2000).fit(feats[:1400], y[:1400])
print("linear probe accuracy", probe.score(feats[1400:], y[1400:]))
