"""tf.where hides log(0) from the loss but not from its gradient."""
# FAULT: nan|inf

import tensorflow as tf

rates = tf.Variable([0.5, 0.0, 2.0], name="rates")
optimizer = tf.keras.optimizers.SGD(0.01)


@tf.function
def entropy_step():
    with tf.GradientTape() as tape:
        terms = tf.where(rates > 0.0, rates * tf.math.log(rates), 0.0)  # WRONG
        loss = tf.reduce_sum(terms)
    optimizer.apply_gradients([(tape.gradient(loss, rates), rates)])
    return loss


for _ in range(3):
    entropy_step()
