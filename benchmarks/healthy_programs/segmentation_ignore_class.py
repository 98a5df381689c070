"""Pixel labelling in which unlabelled pixels are 255 and ignored by the loss; 255 is above the number of classes on purpose."""
import keras
import numpy as np
from keras import layers

VOID = 255
rng = np.random.default_rng(1)


def tiles(n):
    lab = np.zeros((n, 16, 16), "int32")
    lab[:, :, 8:] = 1
    rolls = rng.integers(-4, 5, n)
    for i in range(n):
        lab[i] = np.roll(lab[i], rolls[i], axis=1)
        if rng.random() < 0.7:
            r, c = rng.integers(0, 10, 2)
            lab[i, r:r + 6, c:c + 6] = 2
    colours = np.array([[0.2, 0.6, 0.2], [0.2, 0.3, 0.7], [0.6, 0.5, 0.3]])
    img = colours[lab] + rng.normal(0, 0.25, (n, 16, 16, 3))
    truth = lab.copy()
    lab[rng.random(lab.shape) < 0.3] = VOID
    return img.astype("float32"), lab, truth


x, y, truth = tiles(1000)
model = keras.Sequential([
    layers.Input((16, 16, 3)),
    layers.Conv2D(16, 3, padding="same", activation="relu"),
    layers.Conv2D(16, 3, padding="same", activation="relu"),
    layers.Conv2D(3, 1),
])
model.compile(
    optimizer="adam",
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=VOID),
)
model.fit(x[:800], y[:800], epochs=9, batch_size=32, verbose=2)
p = model.predict(x[800:], verbose=0).argmax(-1)
print("pixel accuracy on all pixels: %.3f" % (p == truth[800:]).mean())
