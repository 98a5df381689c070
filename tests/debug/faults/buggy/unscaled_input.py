"""Pixels from 0 to 255 go into a network that was never told to scale them."""
# FAULT: scale|input
# CAUSE: scale|range|255

import keras
import numpy as np

keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)
images = rng.integers(0, 256, size=(96, 12, 12, 3)).astype("float32")  # WRONG
labels = rng.integers(0, 3, size=96)
model = keras.Sequential(
    [
        keras.Input((12, 12, 3)),
        keras.layers.Conv2D(8, 3, activation="relu"),
        keras.layers.Flatten(),
        keras.layers.Dense(3),
    ]
)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(optimizer="adam", loss=loss, metrics=["accuracy"])
model.fit(images, labels, batch_size=16, epochs=3, verbose=0)
