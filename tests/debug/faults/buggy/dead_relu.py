"""A bias far below zero keeps every ReLU of a layer at 0."""
# FAULT: odd-initialisation
# CAUSE: biases begin at -50

import keras
import numpy as np

keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)
x = rng.normal(size=(256, 8)).astype("float32")
y = (x[:, :1] > 0).astype("float32")
model = keras.Sequential(
    [
        keras.Input((8,)),
        keras.layers.Dense(16, activation="relu"),
        keras.layers.Dense(
            16,
            activation="relu",
            bias_initializer=keras.initializers.Constant(-50.0),  # WRONG
            name="dead",
        ),
        keras.layers.Dense(1, activation="sigmoid"),
    ]
)
model.compile(optimizer=keras.optimizers.SGD(0.01), loss="binary_crossentropy")
model.fit(x, y, batch_size=16, epochs=4, verbose=0)
