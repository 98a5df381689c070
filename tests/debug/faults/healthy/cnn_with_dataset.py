"""Healthy: a convolutional network over tf.data with scaling, BatchNorm and augmentation."""

import keras
import numpy as np
import tensorflow as tf

keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)
labels = np.arange(96) % 3
images = rng.integers(0, 40, size=(96, 12, 12, 3)) + 70 * labels[:, None, None, None]
dataset = (
    tf.data.Dataset.from_tensor_slices((images.astype("uint8"), labels))
    .cache()
    .shuffle(96, seed=0)
    .map(lambda image, label: (tf.cast(image, tf.float32) / 255.0, label))
    .batch(16)
    .prefetch(2)
)
model = keras.Sequential(
    [
        keras.Input((12, 12, 3)),
        keras.layers.RandomFlip("horizontal", seed=0),
        keras.layers.Conv2D(8, 3, use_bias=False),
        keras.layers.BatchNormalization(),
        keras.layers.ReLU(),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dropout(0.2, seed=0),
        keras.layers.Dense(3, activation="softmax"),
    ]
)
model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(dataset, epochs=3, verbose=0)
model.evaluate(dataset, verbose=0)
