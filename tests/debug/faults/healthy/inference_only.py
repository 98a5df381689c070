"""Healthy: no training at all; a log that tf.where guards, on its input too."""

import numpy as np
import tensorflow as tf


@tf.function
def entropy(probabilities):
    safe = tf.where(probabilities > 0.0, probabilities, 1.0)
    return -tf.reduce_sum(probabilities * tf.math.log(safe), axis=-1)


rows = np.array([[1.0, 0.0], [0.5, 0.5]], "float32")
print(entropy(tf.constant(rows)).numpy())
