"""GAN (R1 penalty) on a 2-D ring of eight Gaussians; both losses hover near log 2 and never fall, as they should at equilibrium."""
import numpy as np
import tensorflow as tf
from tensorflow.keras import layers

tf.random.set_seed(3)
rng = np.random.default_rng(3)
LATENT, BATCH, STEPS = 8, 256, 2500

angles = np.arange(8) * np.pi / 4
centres = np.stack([np.cos(angles), np.sin(angles)], 1).astype("float32")


def real_batch(n):
    c = centres[rng.integers(0, 8, n)]
    return (c + 0.1 * rng.normal(size=(n, 2))).astype("float32")


generator = tf.keras.Sequential([
    layers.Input((LATENT,)),
    layers.Dense(64, activation="relu"),
    layers.Dense(64, activation="relu"),
    layers.Dense(2),
])
discriminator = tf.keras.Sequential([
    layers.Input((2,)),
    layers.Dense(64, activation=tf.nn.leaky_relu),
    layers.Dense(64, activation=tf.nn.leaky_relu),
    layers.Dense(1),
])
bce = tf.keras.losses.BinaryCrossentropy(from_logits=True)
g_opt = tf.keras.optimizers.Adam(1e-3, beta_1=0.5)
d_opt = tf.keras.optimizers.Adam(1e-3, beta_1=0.5)


@tf.function
def train_step(real):
    z = tf.random.normal((BATCH, LATENT))
    with tf.GradientTape() as g_tape, tf.GradientTape() as d_tape:
        fake = generator(z, training=True)
        with tf.GradientTape() as r1_tape:
            r1_tape.watch(real)
            real_logit = discriminator(real, training=True)
        slope = r1_tape.gradient(real_logit, real)
        r1 = tf.reduce_mean(tf.reduce_sum(slope ** 2, 1))
        fake_logit = discriminator(fake, training=True)
        g_loss = bce(tf.ones_like(fake_logit), fake_logit)
        d_loss = 0.5 * (bce(tf.ones_like(real_logit), real_logit)
                        + bce(tf.zeros_like(fake_logit), fake_logit)) + 0.1 * r1
    g_grads = g_tape.gradient(g_loss, generator.trainable_variables)
    d_grads = d_tape.gradient(d_loss, discriminator.trainable_variables)
    g_opt.apply_gradients(zip(g_grads, generator.trainable_variables))
    d_opt.apply_gradients(zip(d_grads, discriminator.trainable_variables))
    return g_loss, d_loss


for step in range(STEPS):
    g_loss, d_loss = train_step(tf.constant(real_batch(BATCH)))
    if step % 500 == 0:
        print(f"step {step}: g {g_loss:.3f} d {d_loss:.3f}")

samples = generator(tf.random.normal((2000, LATENT))).numpy()
dist = np.linalg.norm(samples[:, None] - centres[None], axis=-1)
close = dist.min(1) < 0.35
modes = len(np.unique(dist.argmin(1)[close]))
print(f"modes covered {modes}/8, samples near a mode {close.mean():.2f}")
