"""Diffusion-like denoiser: every batch holds arrays and one scalar noise level; custom train_step unpacks them; loss varies with the level."""
import numpy as np
import tensorflow as tf
from tensorflow import keras


class Denoiser(keras.Model):
    def __init__(self):
        super().__init__()
        self.net = keras.Sequential([keras.layers.Dense(96, "silu"), keras.layers.Dense(96, "silu"), keras.layers.Dense(2)])
        self.tracker = keras.metrics.Mean(name="loss")

    @property
    def metrics(self):
        return [self.tracker]

    def call(self, inputs):
        x, sigma = inputs
        s = tf.fill([tf.shape(x)[0], 1], tf.math.log(sigma) / 4.0)
        return self.net(tf.concat([x / tf.sqrt(1.0 + sigma ** 2), s], 1))

    def train_step(self, batch):
        clean, sigma = batch["x"], batch["sigma"]
        eps = tf.random.normal(tf.shape(clean))
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self((clean + sigma * eps, sigma)) - eps) ** 2)
        g = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(g, self.trainable_variables))
        self.tracker.update_state(loss)
        return {"loss": self.tracker.result()}


def stream(seed):
    rng = np.random.default_rng(seed)
    while True:
        a = rng.uniform(0, 2 * np.pi, 256)
        x = np.stack([np.cos(a), np.sin(a)], 1).astype("float32")
        yield {"x": x, "sigma": np.float32(np.exp(rng.uniform(np.log(0.05), np.log(2.0))))}


spec = {"x": tf.TensorSpec((256, 2), tf.float32), "sigma": tf.TensorSpec((), tf.float32)}
data = tf.data.Dataset.from_generator(lambda: stream(0), output_signature=spec)
model = Denoiser()
model.compile(optimizer=keras.optimizers.Adam(2e-3))
model.fit(data, steps_per_epoch=150, epochs=8, verbose=2, shuffle=False)
x = next(stream(5))["x"]
eps = np.random.default_rng(1).normal(size=x.shape).astype("float32")
sigma = tf.constant(0.3)
den = x + 0.3 * eps - 0.3 * model((x + 0.3 * eps, sigma)).numpy()
print("distance to circle: noisy %.3f, denoised %.3f" % (
    np.abs(np.linalg.norm(x + 0.3 * eps, axis=1) - 1).mean(), np.abs(np.linalg.norm(den, axis=1) - 1).mean()))
