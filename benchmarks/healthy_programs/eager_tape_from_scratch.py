"""Eager GradientTape loop with plain tf.Variables and hand-written SGD, no Keras at all."""
import tensorflow as tf
import numpy as np


class Dense(tf.Module):
    def __init__(self, n_in, n_out, relu):
        super().__init__()
        self.w = tf.Variable(tf.random.normal((n_in, n_out)) * np.sqrt(2.0 / n_in).astype("float32"))
        self.b = tf.Variable(tf.zeros(n_out))
        self.relu = relu

    def __call__(self, x):
        z = x @ self.w + self.b
        return tf.nn.relu(z) if self.relu else z


class MLP(tf.Module):
    def __init__(self):
        super().__init__()
        self.layers = [Dense(2, 32, True), Dense(32, 32, True), Dense(32, 1, False)]

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


def xor_data(n):
    x = np.random.uniform(-1, 1, (n, 2)).astype("float32")
    return x, (x[:, :1] * x[:, 1:] > 0).astype("float32")


tf.random.set_seed(1)
np.random.seed(1)
net = MLP()
x, y = xor_data(2000)
for step in range(900):
    i = np.random.randint(0, len(x), 64)
    with tf.GradientTape() as tape:
        logits = net(x[i])
        loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=y[i], logits=logits))
    for v, g in zip(net.trainable_variables, tape.gradient(loss, net.trainable_variables)):
        v.assign_sub(0.1 * g)
    if step % 150 == 0:
        print(f"{step:4d} {loss.numpy():.4f}")
xt, yt = xor_data(1000)
print("test accuracy", np.mean((net(xt).numpy() > 0) == (yt > 0.5)))
