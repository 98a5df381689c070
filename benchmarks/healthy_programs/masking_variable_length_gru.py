"""Series of unequal length padded with -10 and a Masking layer: the constant padding never reaches the GRU."""
import numpy as np
import keras

PAD = -10.0
keras.utils.set_random_seed(6)
rng = np.random.default_rng(6)


def series(n, t_max=30):
    x = np.full((n, t_max, 2), PAD, "float32")
    y = np.zeros((n, 1), "float32")
    for i in range(n):
        t = rng.integers(8, t_max + 1)
        drift = rng.choice([-0.15, 0.15])
        walk = np.cumsum(rng.normal(drift, 0.4, t))
        x[i, :t, 0] = np.diff(walk, prepend=0)
        x[i, :t, 1] = rng.normal(size=t)
        y[i] = drift > 0
    return x, y


xtr, ytr = series(2500)
xte, yte = series(800)
model = keras.Sequential(
    [
        keras.Input((30, 2)),
        keras.layers.Masking(mask_value=PAD),
        keras.layers.GRU(16),
        keras.layers.Dense(1, activation="sigmoid"),
    ]
)
model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
model.fit(xtr, ytr, batch_size=50, epochs=8, validation_data=(xte, yte), verbose=2)
print("accuracy %.3f" % model.evaluate(xte, yte, verbose=0)[1])
