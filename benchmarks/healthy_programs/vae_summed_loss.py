"""VAE on enlarged digits with the ELBO summed over 576 pixels: losses are in the hundreds because they are sums, not means."""
import os
os.environ["KERAS_BACKEND"] = "tensorflow"

import numpy as np
import tensorflow as tf
import keras
from keras import layers, ops
from sklearn.datasets import load_digits

keras.utils.set_random_seed(11)
images = load_digits().images.astype("float32") / 16.0
images = np.kron(images, np.ones((1, 3, 3), "float32"))[..., None]   # 24 x 24
train, test = images[:1500], images[1500:]


class Sampling(layers.Layer):
    def __init__(self, **kw):
        super().__init__(**kw)
        self.seed = keras.random.SeedGenerator(1)

    def call(self, inputs):
        mean, log_var = inputs
        return mean + ops.exp(0.5 * log_var) * keras.random.normal(ops.shape(mean), seed=self.seed)


inp = keras.Input((24, 24, 1))
h = layers.Conv2D(16, 3, 2, padding="same", activation="relu")(inp)
h = layers.Conv2D(32, 3, 2, padding="same", activation="relu")(h)
h = layers.Dense(64, activation="relu")(layers.Flatten()(h))
z_mean, z_log_var = layers.Dense(6)(h), layers.Dense(6)(h)
encoder = keras.Model(inp, [z_mean, z_log_var, Sampling()([z_mean, z_log_var])])

lat = keras.Input((6,))
h = layers.Dense(6 * 6 * 16, activation="relu")(lat)
h = layers.Reshape((6, 6, 16))(h)
h = layers.Conv2DTranspose(16, 3, 2, padding="same", activation="relu")(h)
out = layers.Conv2DTranspose(1, 3, 2, padding="same", activation="sigmoid")(h)
decoder = keras.Model(lat, out)


class VAE(keras.Model):
    def __init__(self, encoder, decoder, **kw):
        super().__init__(**kw)
        self.encoder, self.decoder = encoder, decoder
        self.total = keras.metrics.Mean(name="loss")
        self.rec = keras.metrics.Mean(name="reconstruction")
        self.kl = keras.metrics.Mean(name="kl")

    @property
    def metrics(self):
        return [self.total, self.rec, self.kl]

    def call(self, x):
        return self.decoder(self.encoder(x)[0])

    def train_step(self, x):
        with tf.GradientTape() as tape:
            m, lv, z = self.encoder(x)
            r = self.decoder(z)
            rec = ops.mean(ops.sum(keras.losses.binary_crossentropy(x, r), axis=(1, 2)))
            kl = ops.mean(ops.sum(-0.5 * (1 + lv - m ** 2 - ops.exp(lv)), axis=1))
            loss = rec + kl
        g = tape.gradient(loss, self.trainable_weights)
        self.optimizer.apply_gradients(zip(g, self.trainable_weights))
        for t, v in zip(self.metrics, (loss, rec, kl)):
            t.update_state(v)
        return {t.name: t.result() for t in self.metrics}


vae = VAE(encoder, decoder)
vae.compile(optimizer=keras.optimizers.Adam(2e-3))
vae.fit(train, epochs=18, batch_size=50, verbose=2)

recon = vae.predict(test, verbose=0)
mse, base = np.mean((recon - test) ** 2), np.mean((train.mean(0) - test) ** 2)
print(f"test reconstruction mse {mse:.4f} against {base:.4f} for the mean image")
