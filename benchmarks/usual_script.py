"""The transfer learning that tutorials show: augment and run the frozen backbone in every epoch.

    python benchmarks/usual_script.py IMAGES --epochs 1

Same backbone, weights, size and split as `headstart train`; no report, no export, no cache.
"""

import argparse
import json
from pathlib import Path

import keras
import tensorflow as tf

from headstart.config import BackboneConfig, DatasetConfig
from headstart.tasks.backbones.backbone import load_backbone
from headstart.tasks.dataset.building import build_index

BATCH = 32
parser = argparse.ArgumentParser()
parser.add_argument("images", type=Path)
parser.add_argument("--epochs", type=int, default=20)
arguments = parser.parse_args()
index = build_index(DatasetConfig(images=arguments.images))
network = load_backbone(BackboneConfig())
size = network.image_size


def read(path: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    pixels = tf.io.decode_image(tf.io.read_file(path), channels=3, expand_animations=False)
    pixels.set_shape([None, None, 3])
    return tf.image.resize(pixels, (size, size), antialias=True), label


def dataset(split: str) -> tf.data.Dataset:
    rows = index.rows_of(split)
    files = [str(arguments.images / row.path) for row in rows]
    data = tf.data.Dataset.from_tensor_slices((files, [row.label for row in rows]))
    if split == "train":
        data = data.shuffle(len(rows), seed=0)
    return data.map(read, tf.data.AUTOTUNE).batch(BATCH).prefetch(tf.data.AUTOTUNE)


backbone = network.extractor(["top"])
backbone.trainable = False
inputs = keras.Input((size, size, 3))
x = keras.layers.RandomFlip("horizontal", seed=0)(inputs)
x = keras.layers.RandomRotation(0.1, seed=0)(x)
x = backbone(x, training=False)
x = keras.layers.Dropout(0.2, seed=0)(tf.nest.flatten(x)[0])
model = keras.Model(inputs, keras.layers.Dense(len(index.classes), activation="softmax")(x))
model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
history = model.fit(
    dataset("train"), validation_data=dataset("val"), epochs=arguments.epochs, verbose=0
).history
print(json.dumps({"metrics": {"val": {"accuracy": history["val_accuracy"][-1]}}}))
