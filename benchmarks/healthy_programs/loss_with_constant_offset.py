"""Gaussian likelihood with constants kept plus a fixed prior term by add_loss: the loss never goes near 0, though the fit is good."""
import numpy as np
import tensorflow as tf


class ConstantPrior(tf.keras.layers.Layer):
    def call(self, x):
        self.add_loss(tf.constant(12.0))       # log evidence of another part of the pipeline
        return x


def gaussian_nll(y, params):
    mu, log_var = params[:, :1], params[:, 1:]
    return 0.5 * (np.log(2 * np.pi) + log_var + (y - mu) ** 2 / tf.exp(log_var))


rng = np.random.default_rng(19)
x = rng.uniform(-2, 2, (4000, 1)).astype("float32")
noise = 0.2 + 0.3 * (x > 0)
y = (x ** 3 / 4 + noise * rng.normal(size=x.shape)).astype("float32")
inp = tf.keras.Input((1,))
h = tf.keras.layers.Dense(32, activation="softplus")(ConstantPrior()(inp))
h = tf.keras.layers.Dense(32, activation="softplus")(h)
model = tf.keras.Model(inp, tf.keras.layers.Dense(2)(h))
model.compile(optimizer=tf.keras.optimizers.Adam(4e-3), loss=gaussian_nll)
model.fit(x[:3200], y[:3200], batch_size=64, epochs=20, verbose=2)
p = model.predict(x[3200:], verbose=0)
sd = np.exp(0.5 * p[:, 1])
print("rmse %.3f (sd of y %.3f); sd found left %.2f right %.2f" % (
    np.sqrt(np.mean((p[:, 0] - y[3200:, 0]) ** 2)), y[3200:].std(), sd[x[3200:, 0] < -0.5].mean(), sd[x[3200:, 0] > 0.5].mean()))
