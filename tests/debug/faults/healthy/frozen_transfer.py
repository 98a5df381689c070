"""Healthy: a frozen base is recompiled after unfreezing, as it should be."""

import keras
import numpy as np

keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)
x = rng.normal(size=(128, 8)).astype("float32")
y = np.eye(2, dtype="float32")[(x[:, 0] > 0).astype("int32")]
base = keras.Sequential(
    [keras.Input((8,)), keras.layers.Dense(16), keras.layers.BatchNormalization()]
)
base.trainable = False
inputs = keras.Input((8,))
features = keras.layers.ReLU()(base(inputs, training=False))
model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(features))
model.compile(optimizer=keras.optimizers.Adam(0.01), loss="categorical_crossentropy")
model.fit(x, y, batch_size=16, epochs=2, verbose=0)
base.trainable = True
model.compile(optimizer=keras.optimizers.Adam(0.001), loss="categorical_crossentropy")
model.fit(x, y, batch_size=16, epochs=2, verbose=0)
