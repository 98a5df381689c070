"""Overcomplete ReLU code with an L1 activity penalty: most units are silent for most inputs, and some for all; that is the purpose."""
import numpy as np
import tensorflow as tf

rng = np.random.default_rng(23)
atoms = rng.normal(size=(40, 32))
atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
codes = rng.exponential(1.0, (6000, 40)) * (rng.random((6000, 40)) < 0.06)
data = (codes @ atoms).astype("float32")

inputs = tf.keras.Input((32,))
code = tf.keras.layers.Dense(128, activation="relu", bias_initializer=tf.keras.initializers.Constant(-0.1),
                             activity_regularizer=tf.keras.regularizers.L1(1e-3), name="code")(inputs)
outputs = tf.keras.layers.Dense(32, use_bias=False)(code)
sae = tf.keras.Model(inputs, outputs)
sae.compile(optimizer=tf.keras.optimizers.Adam(3e-3), loss="mse")
sae.fit(data[:5000], data[:5000], epochs=15, batch_size=100, verbose=2)
active = tf.keras.Model(inputs, code).predict(data[5000:], verbose=0) > 0
err = np.mean((sae.predict(data[5000:], verbose=0) - data[5000:]) ** 2)
print("share active %.3f, units never active %d of 128" % (active.mean(), (~active.any(0)).sum()))
print("mse %.4f, variance %.4f" % (err, data[5000:].var()))
