"""WGAN with one-sided gradient penalty as a keras.Model; the critic loss is negative and climbs towards zero, which is what it should do."""
import keras
import numpy as np
import tensorflow as tf
from keras import layers
from sklearn.datasets import make_moons


class WGAN(keras.Model):
    def __init__(self, latent=4, n_critic=3, gp_weight=2.0):
        super().__init__()
        self.latent, self.n_critic, self.gp_weight = latent, n_critic, gp_weight
        self.gen = keras.Sequential([layers.Input((latent,)), layers.Dense(64, "relu"), layers.Dense(64, "relu"), layers.Dense(2)])
        self.critic = keras.Sequential([layers.Input((2,)), layers.Dense(64, "relu"), layers.Dense(64, "relu"), layers.Dense(1)])
        self.c_tracker = keras.metrics.Mean(name="critic_loss")
        self.g_tracker = keras.metrics.Mean(name="gen_loss")

    @property
    def metrics(self):
        return [self.c_tracker, self.g_tracker]

    def compile(self, c_opt, g_opt):
        super().compile()
        self.c_opt, self.g_opt = c_opt, g_opt

    def call(self, z):
        return self.gen(z)

    def train_step(self, real):
        n = tf.shape(real)[0]
        for _ in range(self.n_critic):
            fake = self.gen(tf.random.normal((n, self.latent)), training=True)
            eps = tf.random.uniform((n, 1))
            mixed = eps * real + (1 - eps) * fake
            with tf.GradientTape() as tape:
                with tf.GradientTape() as inner:
                    inner.watch(mixed)
                    score = self.critic(mixed, training=True)
                slope = tf.norm(inner.gradient(score, mixed) + 1e-12, axis=1)
                w_loss = tf.reduce_mean(self.critic(fake)) - tf.reduce_mean(self.critic(real))
                loss = w_loss + self.gp_weight * tf.reduce_mean(tf.nn.relu(slope - 1.0) ** 2)
            grads = tape.gradient(loss, self.critic.trainable_variables)
            self.c_opt.apply_gradients(zip(grads, self.critic.trainable_variables))
            self.c_tracker.update_state(loss)
        with tf.GradientTape() as tape:
            fake = self.gen(tf.random.normal((n, self.latent)), training=True)
            g_loss = -tf.reduce_mean(self.critic(fake))
        grads = tape.gradient(g_loss, self.gen.trainable_variables)
        self.g_opt.apply_gradients(zip(grads, self.gen.trainable_variables))
        self.g_tracker.update_state(g_loss)
        return {m.name: m.result() for m in self.metrics}


def main():
    keras.utils.set_random_seed(0)
    x, _ = make_moons(6400, noise=0.05, random_state=0)
    x = ((x - x.mean(0)) / x.std(0)).astype("float32")
    ds = tf.data.Dataset.from_tensor_slices(x).shuffle(6400).batch(128, drop_remainder=True)
    model = WGAN()
    model.compile(keras.optimizers.Adam(1e-3, beta_1=0.0, beta_2=0.9),
                  keras.optimizers.Adam(1e-3, beta_1=0.0, beta_2=0.9))
    model.fit(ds, epochs=24, verbose=2)
    fake = model.gen(tf.random.normal((1000, model.latent))).numpy()
    near = np.linalg.norm(fake[:, None] - x[None, :1500], axis=-1).min(1)
    covered = np.linalg.norm(x[:500, None] - fake[None], axis=-1).min(1)
    print("median distance fake->data %.3f, data->fake %.3f" % (np.median(near), np.median(covered)))


if __name__ == "__main__":
    main()
