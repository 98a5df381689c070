"""What somebody who knows Keras and scikit-learn writes in thirty lines, to be compared with.

    python benchmarks/expert_script.py IMAGES

Same backbone, weights, size and split as `headstart train`; no report, no export, no cache.
"""

import json
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from headstart.config import BackboneConfig, DatasetConfig
from headstart.tasks.backbones.backbone import load_backbone
from headstart.tasks.dataset.building import build_index

BATCH = 32
images = Path(sys.argv[1])
index = build_index(DatasetConfig(images=images))
rows = [*index.rows_of("train"), *index.rows_of("val")]
network = load_backbone(BackboneConfig())
size = network.image_size


def read(path: tf.Tensor) -> tf.Tensor:
    pixels = tf.io.decode_image(tf.io.read_file(path), channels=3, expand_animations=False)
    pixels.set_shape([None, None, 3])
    return tf.image.resize(pixels, (size, size), antialias=True)


files = tf.data.Dataset.from_tensor_slices([str(images / row.path) for row in rows])
data = files.map(read, tf.data.AUTOTUNE).batch(BATCH).prefetch(tf.data.AUTOTUNE)
model: keras.Model = network.extractor(["top"])
features = model.predict(data, verbose=0)
labels = np.array([row.label for row in rows])
is_train = np.array([row.split == "train" for row in rows])
scaler = StandardScaler().fit(features[is_train])
head = LogisticRegression(C=0.01, max_iter=1000).fit(
    scaler.transform(features[is_train]), labels[is_train]
)
accuracy = head.score(scaler.transform(features[~is_train]), labels[~is_train])
print(json.dumps({"metrics": {"val": {"accuracy": accuracy}}}))
