"""One value of the training data is NaN."""
# FAULT: nan
# CAUSE: input|data|batch

import keras
import numpy as np

keras.utils.set_random_seed(0)
x = np.random.default_rng(0).normal(size=(64, 6)).astype("float32")
x[37, 2] = np.nan  # WRONG
y = np.ones((64, 1), "float32")
model = keras.Sequential(
    [keras.Input((6,)), keras.layers.Dense(8, activation="relu"), keras.layers.Dense(1)]
)
model.compile(optimizer="adam", loss="mse")
model.fit(x, y, batch_size=8, epochs=1, shuffle=False, verbose=0)
