"""CTC on noisy one-hot streams; CTC losses start at dozens, sit on a plateau of blanks, and then fall."""
import numpy as np
import tensorflow as tf
from tensorflow import keras

BLANK, CLASSES, T, MAX_LEN = 0, 6, 24, 6
rng = np.random.default_rng(0)
patterns = rng.normal(size=(CLASSES, 8))


def batch(n):
    x = rng.normal(0, 0.3, (n, T, 8))
    y = np.zeros((n, MAX_LEN), "int32")
    lens = rng.integers(3, MAX_LEN + 1, n)
    for i in range(n):
        y[i, :lens[i]] = rng.integers(1, CLASSES, lens[i])
        pos = np.sort(rng.choice(np.arange(0, T - 2, 3), lens[i], replace=False))
        for p, c in zip(pos, y[i]):
            x[i, p:p + 2] += patterns[c]
    return tf.constant(x, tf.float32), tf.constant(y), tf.constant(lens, tf.int32)


model = keras.Sequential([keras.Input((T, 8)), keras.layers.Conv1D(48, 5, padding="same", activation="relu"),
                          keras.layers.Conv1D(48, 3, padding="same", activation="relu"), keras.layers.Dense(CLASSES)])
opt = keras.optimizers.Adam(3e-3)


@tf.function
def step(x, y, lens):
    n = tf.shape(x)[0]
    with tf.GradientTape() as tape:
        logits = model(x, training=True)
        loss = tf.reduce_mean(tf.nn.ctc_loss(y, logits, lens, tf.fill([n], T), logits_time_major=False, blank_index=BLANK))
    opt.apply_gradients(zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables))
    return loss


for i in range(401):
    loss = step(*batch(32))
    if i % 50 == 0:
        print("iteration", i, "ctc loss %.3f" % float(loss))
x, y, lens = batch(300)
best = model(x).numpy().argmax(-1)
hits = 0
for row, target, n in zip(best, y.numpy(), lens.numpy()):
    out = [c for k, c in enumerate(row) if c != BLANK and (k == 0 or row[k - 1] != c)]
    hits += out == list(target[:n])
print("whole sequences right:", hits / 300)
