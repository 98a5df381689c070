"""Wide & deep: two optimizers in one loop, Ftrl for the sparse linear part and Adam for the deep part."""
import numpy as np
import tensorflow as tf

rng = np.random.default_rng(0)
CROSS, N = 400, 12000
cross = rng.integers(0, CROSS, N)
dense = rng.normal(size=(N, 6)).astype("float32")
effect = rng.normal(0, 1.0, CROSS)
logit = effect[cross] + 1.5 * np.tanh(dense[:, 0] * dense[:, 1]) + 0.7 * dense[:, 2]
click = (rng.random(N) < 1 / (1 + np.exp(-logit))).astype("float32")

wide = tf.keras.layers.Embedding(CROSS, 1, embeddings_initializer="zeros")
deep = tf.keras.Sequential([tf.keras.layers.Input((6,)), tf.keras.layers.Dense(32, "relu"), tf.keras.layers.Dense(1)])
wide.build((None,))
opt_wide = tf.keras.optimizers.Ftrl(0.3)
opt_deep = tf.keras.optimizers.Adam(3e-3)


def forward(c, d):
    return tf.squeeze(wide(c) + deep(d), -1)


@tf.function
def step(c, d, y):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=y, logits=forward(c, d)))
    gw, gd = tape.gradient(loss, [wide.trainable_variables, deep.trainable_variables])
    opt_wide.apply_gradients(zip(gw, wide.trainable_variables))
    opt_deep.apply_gradients(zip(gd, deep.trainable_variables))
    return loss


ds = tf.data.Dataset.from_tensor_slices((cross[:10000], dense[:10000], click[:10000])).shuffle(10000, seed=0).batch(100)
for epoch in range(8):
    print("epoch", epoch, "loss", np.mean([step(*b).numpy() for b in ds]))
auc = tf.keras.metrics.AUC(from_logits=True)
auc.update_state(click[10000:], forward(cross[10000:], dense[10000:]))
print("test AUC", float(auc.result()))
