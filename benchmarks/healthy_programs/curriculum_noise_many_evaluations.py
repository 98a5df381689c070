"""Curriculum: the data become noisier stage by stage, so the loss goes up at each stage; evaluated after every epoch on four sets."""
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

x, y = load_digits(return_X_y=True)
x = x.astype(np.float32) / 16.0
rng = np.random.default_rng(2)


def noisy(a, level):
    return (a + level * rng.normal(size=a.shape)).astype(np.float32)


inputs = tf.keras.Input((64,))
z = tf.keras.layers.Dense(128, activation="relu")(inputs)
z = tf.keras.layers.Dropout(0.2)(z)
model = tf.keras.Model(inputs, tf.keras.layers.Dense(10, activation="softmax")(z))
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])

tests = {lvl: (noisy(x[1400:], lvl), y[1400:]) for lvl in (0.0, 0.15, 0.3, 0.45)}
for level in tests:
    for epoch in range(4):
        h = model.fit(noisy(x[:1400], level), y[:1400], batch_size=25, epochs=1, verbose=0)
        scores = {k: round(model.evaluate(*v, batch_size=100, verbose=0)[1], 3) for k, v in tests.items()}
        print("noise", level, "train loss %.3f" % h.history["loss"][0], "accuracy", scores)
