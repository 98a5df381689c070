"""A layer is frozen after compiling and fitting, which Keras does not notice."""
# FAULT: trainable|frozen|freez
# CAUSE: trainable|compil

import keras
import numpy as np

keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)
x = rng.normal(size=(64, 6)).astype("float32")
y = x[:, :1]
base = keras.layers.Dense(16, activation="relu", name="base")
model = keras.Sequential([keras.Input((6,)), base, keras.layers.Dense(1)])
model.compile(optimizer="adam", loss="mse")
model.fit(x, y, batch_size=16, epochs=1, verbose=0)
base.trainable = False  # WRONG
model.fit(x, y, batch_size=16, epochs=2, verbose=0)
