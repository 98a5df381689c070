"""Forecast of a noisy seasonal series from sliding windows; neighbouring windows overlap, validation is the later stretch."""
import numpy as np
import tensorflow as tf

t = np.arange(4000, dtype="float32")
rng = np.random.default_rng(3)
series = np.sin(t * 2 * np.pi / 24) + 0.5 * np.sin(t * 2 * np.pi / 168) + 0.1 * rng.normal(size=t.size)
series = series.astype("float32")
split, window = 3200, 48
mean, std = series[:split].mean(), series[:split].std()
series = (series - mean) / std


def windows(part, shuffle):
    return tf.keras.utils.timeseries_dataset_from_array(
        part[:-1], part[window:], sequence_length=window, batch_size=64, shuffle=shuffle, seed=1)


train, val = windows(series[:split], True), windows(series[split - window:], False)
model = tf.keras.Sequential([
    tf.keras.layers.Input((window,)),
    tf.keras.layers.Reshape((window, 1)),
    tf.keras.layers.Conv1D(16, 6, activation="relu", padding="causal"),
    tf.keras.layers.LSTM(16),
    tf.keras.layers.Dense(1),
])
model.compile(loss=tf.keras.losses.MeanAbsoluteError(), optimizer=tf.keras.optimizers.Adam(4e-3))
model.fit(train, validation_data=val, epochs=6, verbose=2)
naive = np.abs(np.diff(series[split:])).mean()
print("val MAE %.3f, last-value forecast %.3f" % (model.evaluate(val, verbose=0), naive))
