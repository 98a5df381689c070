"""Attention with a -inf causal mask in an own tf.function loop: infinities in the masked scores are right, softmax turns them into zeros."""
import numpy as np
import tensorflow as tf

T, D = 16, 24
tf.random.set_seed(0)


class Block(tf.Module):
    def __init__(self):
        init = tf.keras.initializers.GlorotUniform(seed=1)
        self.embed = tf.Variable(init((1, D)))
        self.pos = tf.Variable(tf.random.normal((T, D), stddev=0.1))
        self.wq, self.wk, self.wv, self.w1 = (tf.Variable(init((D, D))) for _ in range(4))
        self.w2 = tf.Variable(init((D, 1)))
        upper = np.triu(np.ones((T, T)), 1)
        self.mask = tf.constant(np.where(upper > 0, -np.inf, 0.0), tf.float32)

    def __call__(self, x):
        h = x[..., None] @ self.embed + self.pos
        score = tf.matmul(h @ self.wq, h @ self.wk, transpose_b=True) / D ** 0.5 + self.mask
        h = h + tf.nn.softmax(score) @ (h @ self.wv)
        return tf.squeeze(tf.nn.relu(h @ self.w1) @ self.w2, -1)


def batch(n):
    x = np.random.randn(n, T).astype("float32")
    running_mean = np.cumsum(x, 1) / np.arange(1, T + 1)
    return tf.constant(x), tf.constant(running_mean.astype("float32"))


model = Block()
opt = tf.keras.optimizers.Adam(5e-3)


@tf.function
def step(x, y):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((model(x) - y) ** 2)
    grads = tape.gradient(loss, model.trainable_variables)
    opt.apply_gradients(zip(grads, model.trainable_variables))
    return loss


np.random.seed(0)
for i in range(800):
    loss = step(*batch(64))
    if i % 100 == 0:
        print(i, float(loss))
x, y = batch(1000)
print("test mse", float(tf.reduce_mean((model(x) - y) ** 2)), "target variance", float(tf.math.reduce_variance(y)))
