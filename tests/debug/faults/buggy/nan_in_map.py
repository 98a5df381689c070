"""A tf.data map divides an image by its deviation, which is 0 for a blank image."""
# FAULT: nan

import keras
import numpy as np
import tensorflow as tf


def standardise(image, label):
    mean, variance = tf.nn.moments(image, axes=[0, 1, 2])
    return (image - mean) / tf.sqrt(variance), label  # WRONG


keras.utils.set_random_seed(0)
images = np.random.default_rng(0).uniform(size=(32, 8, 8, 1)).astype("float32")
images[13] = 0.5
labels = np.arange(32) % 2
dataset = tf.data.Dataset.from_tensor_slices((images, labels)).map(standardise).batch(8)
model = keras.Sequential(
    [
        keras.Input((8, 8, 1)),
        keras.layers.Conv2D(4, 3, activation="relu"),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(2),
    ]
)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(optimizer="adam", loss=loss)
model.fit(dataset, epochs=1, verbose=0)
