"""A ThreadPoolExecutor at module level writes logs while fit runs; threads stay alive between epochs."""
import json
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow as tf

POOL = ThreadPoolExecutor(max_workers=2)
LOG = os.path.join(tempfile.mkdtemp(), "log.jsonl")


def write(record):
    with open(LOG, "a") as f:
        f.write(json.dumps(record) + "\n")


class ThreadLog(tf.keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch % 20 == 0:
            POOL.submit(write, {"batch": batch, "loss": float(logs["loss"])})

    def on_epoch_end(self, epoch, logs=None):
        POOL.submit(write, {"epoch": epoch, **{k: float(v) for k, v in logs.items()}})


x = np.random.default_rng(0).normal(size=(5000, 10)).astype("float32")
y = (np.abs(x[:, 0]) + x[:, 1] * x[:, 2] > 0.8).astype("float32").reshape(-1, 1)
model = tf.keras.Sequential([
    tf.keras.layers.Input((10,)),
    tf.keras.layers.Dense(64, activation="relu"),
    tf.keras.layers.Dense(32, activation="relu"),
    tf.keras.layers.Dense(1, activation="sigmoid"),
])
model.compile(optimizer="adam", loss="bce", metrics=["accuracy"])
model.fit(x[:4000], y[:4000], batch_size=40, epochs=12, verbose=0, callbacks=[ThreadLog()])
POOL.shutdown(wait=True)
print(sum(1 for _ in open(LOG)), "log lines; test", model.evaluate(x[4000:], y[4000:], verbose=0))
