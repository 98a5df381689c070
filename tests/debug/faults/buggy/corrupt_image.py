"""One of the image files is cut short, and the input pipeline cannot decode it."""
# FAULT: data|image|decode
# CAUSE: decod|JPEG|PNG|corrupt

import tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

keras.utils.set_random_seed(0)
folder = Path(tempfile.mkdtemp())
for index in range(8):
    pixels = np.full((8, 8, 3), 20 * index, "uint8")
    data = tf.io.encode_png(pixels).numpy()
    (folder / f"{index}.png").write_bytes(data[:20] if index == 5 else data)


def load(path):
    image = tf.io.decode_png(tf.io.read_file(path), channels=3)  # WRONG
    return tf.cast(image, tf.float32) / 255.0, 1.0


paths = sorted(str(path) for path in folder.iterdir())
dataset = tf.data.Dataset.from_tensor_slices(paths).map(load).batch(2)
model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(1)])
model.compile(optimizer="adam", loss="mse")
model.fit(dataset, epochs=1, verbose=0)
