"""keras.utils.PyDataset with random shifts and noise: the augmented training accuracy lies below the validation accuracy."""
import math

import keras
import numpy as np
from sklearn.datasets import load_digits


class ShiftedDigits(keras.utils.PyDataset):
    def __init__(self, x, y, batch, **kwargs):
        super().__init__(**kwargs)
        self.x, self.y, self.batch = x, y, batch
        self.rng = np.random.default_rng(0)
        self.order = self.rng.permutation(len(x))

    def __len__(self):
        return math.ceil(len(self.x) / self.batch)

    def __getitem__(self, i):
        idx = self.order[i * self.batch:(i + 1) * self.batch]
        x = np.stack([np.roll(self.x[j], self.rng.integers(-1, 2, 2), axis=(0, 1)) for j in idx])
        return np.clip(x + self.rng.normal(0, 0.1, x.shape), 0, 1).astype("float32"), self.y[idx]

    def on_epoch_end(self):
        self.rng.shuffle(self.order)


d = load_digits()
x, y = (d.images / 16.0)[..., None].astype("float32"), d.target
train = ShiftedDigits(x[:1400], y[:1400], 50)
model = keras.Sequential([
    keras.Input((8, 8, 1)),
    keras.layers.Conv2D(24, 3, activation="relu", padding="same"),
    keras.layers.MaxPooling2D(),
    keras.layers.Conv2D(48, 3, activation="relu"),
    keras.layers.Flatten(),
    keras.layers.Dense(10, activation="softmax"),
])
model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(train, epochs=12, validation_data=(x[1400:], y[1400:]), verbose=2)
print("val", model.evaluate(x[1400:], y[1400:], verbose=0))
