"""Transfer: pre-train on digits 0-4, freeze the trunk for 5-9, then unfreeze at 1e-5; in the last phase the loss hardly moves and should not."""
import numpy as np
import tensorflow as tf
from tensorflow.keras import layers
from sklearn.datasets import load_digits

tf.keras.utils.set_random_seed(0)
d = load_digits()
order = np.random.default_rng(0).permutation(len(d.target))
X, y = (d.images[order][..., None] / 16.0).astype("float32"), d.target[order]
old, new = y < 5, y >= 5


def trunk():
    return tf.keras.Sequential([
        layers.Input((8, 8, 1)),
        layers.Conv2D(24, 3, padding="same", activation="relu"),
        layers.Conv2D(24, 3, padding="same", activation="relu"),
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dense(96, activation="relu"),
    ], name="trunk")


base = trunk()
source = tf.keras.Sequential([base, layers.Dense(5, activation="softmax")])
source.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
source.fit(X[old], y[old], epochs=8, batch_size=32, verbose=2)

base.trainable = False
inputs = layers.Input((8, 8, 1))
h = base(inputs, training=False)
target = tf.keras.Model(inputs, layers.Dense(5, activation="softmax")(h))
Xn, yn = X[new], y[new] - 5
cut = 700
target.compile(tf.keras.optimizers.Adam(1e-2), "sparse_categorical_crossentropy", metrics=["accuracy"])
target.fit(Xn[:cut], yn[:cut], epochs=8, batch_size=32, validation_data=(Xn[cut:], yn[cut:]), verbose=2)

base.trainable = True
target.compile(tf.keras.optimizers.Adam(1e-5), "sparse_categorical_crossentropy", metrics=["accuracy"])
target.fit(Xn[:cut], yn[:cut], epochs=8, batch_size=32, validation_data=(Xn[cut:], yn[cut:]), verbose=2)
print("accuracy on the new digits:", target.evaluate(Xn[cut:], yn[cut:], verbose=0)[1])
