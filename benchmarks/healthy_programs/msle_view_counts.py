"""Mean squared logarithmic error for counts from 1 to 1e6; exp output, so the tiny-looking loss (0.1) is a relative error."""
import numpy as np
import tensorflow as tf
from tensorflow.keras import layers, models

rng = np.random.RandomState(8)
followers = np.exp(rng.normal(8, 2, size=5000))
hour = rng.uniform(0, 24, size=5000)
quality = rng.beta(2, 2, size=5000)
log_views = 0.8 * np.log(followers) + 2.5 * quality + 0.5 * np.sin(hour / 24 * 2 * np.pi) + rng.normal(0, 0.3, 5000)
views = np.exp(log_views).astype("float32")
feats = np.stack([(np.log(followers) - 8) / 2, quality * 2 - 1, np.sin(hour / 24 * 2 * np.pi), np.cos(hour / 24 * 2 * np.pi)], 1).astype("float32")

model = models.Sequential([
    layers.Input(shape=(4,)),
    layers.Dense(32, activation="relu"),
    layers.Dense(32, activation="relu"),
    layers.Dense(1, activation="exponential", bias_initializer=tf.keras.initializers.Constant(7.0)),
])
model.compile("adam", loss="msle")
h = model.fit(feats[:4000], views[:4000], epochs=20, batch_size=100, validation_data=(feats[4000:], views[4000:]), verbose=0)
print("msle: %.3f -> %.3f" % (h.history["loss"][0], h.history["loss"][-1]))
p = model.predict(feats[4000:], verbose=0)[:, 0]
print("correlation of log prediction with log views: %.3f" % np.corrcoef(np.log1p(p), np.log1p(views[4000:]))[0, 1])
