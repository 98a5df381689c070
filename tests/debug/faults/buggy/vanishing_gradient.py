"""Twelve sigmoid layers in a row leave no gradient for the first."""
# FAULT: vanish
# CAUSE: vanish|gradient

import keras
import numpy as np

keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)
x = rng.normal(size=(256, 8)).astype("float32")
y = (x[:, :1] > 0).astype("float32")
layers = [keras.layers.Dense(16, activation="sigmoid") for _ in range(12)]  # WRONG
model = keras.Sequential([keras.Input((8,)), *layers, keras.layers.Dense(1, activation="sigmoid")])
model.compile(optimizer=keras.optimizers.SGD(0.01), loss="binary_crossentropy")
model.fit(x, y, batch_size=16, epochs=4, verbose=0)
