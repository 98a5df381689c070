"""A custom train_step adds the square root of a quantity that turns negative."""
# FAULT: nan

import keras
import numpy as np
import tensorflow as tf


class Regressor(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden = keras.layers.Dense(8, activation="tanh")
        self.out = keras.layers.Dense(1)

    def call(self, inputs):
        return self.out(self.hidden(inputs))

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            residual = self(x, training=True) - y
            loss = tf.reduce_mean(tf.square(residual))
            loss += 0.1 * tf.sqrt(tf.reduce_mean(residual))  # WRONG
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return {"loss": loss}


keras.utils.set_random_seed(0)
x = np.random.default_rng(0).normal(size=(64, 3)).astype("float32")
y = np.full((64, 1), 2.0, "float32")
model = Regressor()
model.compile(optimizer=keras.optimizers.SGD(0.05))
model.fit(x, y, batch_size=16, epochs=2, verbose=0)
