"""Binary focal loss on a 5 % class: losses of 0.02 are small because focal loss down-weights the easy mass."""
import numpy as np
import tensorflow as tf
from tensorflow.keras import layers


def focal(gamma=2.0, alpha=0.5):
    def loss(y_true, logits):
        y_true = tf.cast(y_true, logits.dtype)
        ce = tf.nn.sigmoid_cross_entropy_with_logits(labels=y_true, logits=logits)
        p_t = tf.exp(-ce)
        a_t = y_true * alpha + (1.0 - y_true) * (1.0 - alpha)
        return tf.reduce_mean(a_t * (1.0 - p_t) ** gamma * ce, axis=-1)
    return loss


rng = np.random.default_rng(31)
n = 10000
r = np.where(rng.random(n) < 0.05, rng.normal(1.0, 0.1, n), np.abs(rng.normal(0.4, 0.3, n)))
phi = rng.uniform(0, 2 * np.pi, n)
X = np.stack([r * np.cos(phi), r * np.sin(phi)], 1).astype("float32")
ring = np.abs(r - 1.0) < 0.08
y = ring.astype("float32")[:, None]

model = tf.keras.Sequential([
    layers.Input((2,)), layers.Dense(48, activation="relu"), layers.Dense(48, activation="relu"), layers.Dense(1)])
model.compile(tf.keras.optimizers.Adam(5e-3), loss=focal(), metrics=[tf.keras.metrics.AUC(curve="PR", from_logits=True, name="pr_auc")])
model.fit(X[:8000], y[:8000], epochs=25, batch_size=64, verbose=2)
print("positives %.3f" % y.mean(), model.evaluate(X[8000:], y[8000:], verbose=0, return_dict=True))
