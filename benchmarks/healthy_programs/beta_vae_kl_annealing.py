"""Beta-VAE whose KL weight is annealed from 0 to 1: the total loss rises while the weight rises, though learning goes on."""
import tensorflow as tf
from tensorflow import keras
from tensorflow.keras import layers
from sklearn.datasets import load_digits

x = load_digits().data.astype("float32") / 16.0
x_train, x_test = x[:1440], x[1440:]
tf.keras.utils.set_random_seed(2)


class BetaVAE(keras.Model):
    def __init__(self, latent=8):
        super().__init__()
        self.enc = keras.Sequential([layers.Dense(128, activation="relu"), layers.Dense(2 * latent)])
        self.dec = keras.Sequential([layers.Dense(128, activation="relu"), layers.Dense(64)])
        self.beta = tf.Variable(0.0, trainable=False, dtype=tf.float32)
        self.trackers = [keras.metrics.Mean(name=n) for n in ("loss", "rec", "kl")]

    @property
    def metrics(self):
        return self.trackers

    def call(self, x, training=False):
        mu, logvar = tf.split(self.enc(x), 2, axis=-1)
        z = mu
        if training:
            z += tf.exp(0.5 * logvar) * tf.random.normal(tf.shape(mu))
        return self.dec(z), mu, logvar

    def elbo(self, x, training):
        logits, mu, logvar = self(x, training=training)
        rec = tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(labels=x, logits=logits), 1)
        kl = -0.5 * tf.reduce_sum(1.0 + logvar - mu * mu - tf.exp(logvar), 1)
        rec, kl = tf.reduce_mean(rec), tf.reduce_mean(kl)
        return rec + self.beta * kl, rec, kl

    def train_step(self, data):
        with tf.GradientTape() as tape:
            parts = self.elbo(data, True)
        grads = tape.gradient(parts[0], self.trainable_variables)
        self.optimizer.apply_gradients(zip(grads, self.trainable_variables))
        [t.update_state(p) for t, p in zip(self.trackers, parts)]
        return {t.name: t.result() for t in self.trackers}

    def test_step(self, data):
        [t.update_state(p) for t, p in zip(self.trackers, self.elbo(data, False))]
        return {t.name: t.result() for t in self.trackers}


class Anneal(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        self.model.beta.assign(min(1.0, max(0.0, (epoch - 4) / 12.0)))


model = BetaVAE()
model.compile(optimizer="adam")
hist = model.fit(x_train, batch_size=48, epochs=25, callbacks=[Anneal()], validation_data=(x_test,), verbose=0)
for e in range(0, 25, 4):
    print(e, {k: round(v[e], 2) for k, v in hist.history.items()})
rec = tf.sigmoid(model(x_test)[0]).numpy()
print("test mse", float(((rec - x_test) ** 2).mean()), "variance", float(x_test.var(0).mean()))
