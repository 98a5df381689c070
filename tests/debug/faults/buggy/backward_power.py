"""A fractional power is differentiated at 0."""
# FAULT: nan|inf

import keras
import numpy as np


class GammaCorrection(keras.layers.Layer):
    def build(self, input_shape):
        self.scale = self.add_weight(shape=(input_shape[-1],), initializer="ones", name="scale")

    def call(self, inputs):
        brightness = keras.ops.relu(inputs * self.scale)
        return keras.ops.power(brightness, 0.45)  # WRONG


keras.utils.set_random_seed(0)
x = np.random.default_rng(0).uniform(0.1, 1.0, size=(40, 7)).astype("float32")
x[21, 3] = 0.0
y = np.ones((40, 1), "float32")
model = keras.Sequential([keras.Input((7,)), GammaCorrection(), keras.layers.Dense(1)])
model.compile(optimizer="rmsprop", loss="mse")
model.fit(x, y, batch_size=10, epochs=1, shuffle=False, verbose=0)
