"""A stock LayerNormalization without epsilon divides constant rows by a zero deviation."""
# FAULT: nan|inf

import keras
import numpy as np

keras.utils.set_random_seed(0)
x = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
x[10] = 1.0
y = np.zeros((32, 1), "float32")
model = keras.Sequential(
    [
        keras.Input((6,)),
        keras.layers.LayerNormalization(epsilon=0.0, name="norm"),  # WRONG
        keras.layers.Dense(4, activation="tanh"),
        keras.layers.Dense(1),
    ]
)
model.compile(optimizer="adam", loss="mse")
model.fit(x, y, batch_size=8, epochs=1, shuffle=False, verbose=0)
