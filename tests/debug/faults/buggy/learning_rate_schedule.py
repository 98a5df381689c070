"""A warm-up schedule divides by the step, which is 0 on the first call."""
# FAULT: nan|inf

import keras
import numpy as np
import tensorflow as tf


class InverseSquareRoot(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        step = tf.cast(step, tf.float32)
        return 0.01 * step * tf.math.rsqrt(step)  # WRONG


keras.utils.set_random_seed(0)
x = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
y = x[:, :1]
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
model.compile(optimizer=keras.optimizers.SGD(InverseSquareRoot()), loss="mse")
model.fit(x, y, batch_size=8, epochs=1, verbose=0)
