"""Overridden make_train_function that does several inner updates a call (look-ahead style weight averaging every five)."""
import numpy as np
import tensorflow as tf
from sklearn.datasets import make_classification


class Lookahead(tf.keras.Model):
    k, alpha = 5, 0.5

    def make_train_function(self, force=False):
        if self.train_function is not None and not force:
            return self.train_function
        self.slow = [tf.Variable(v, trainable=False) for v in self.trainable_variables]
        self.calls = tf.Variable(0, dtype=tf.int64, trainable=False)

        def sync():
            for s, v in zip(self.slow, self.trainable_variables):
                s.assign_add(self.alpha * (v - s))
                v.assign(s)
            return True

        @tf.function(reduce_retracing=True)
        def one(data):
            logs = self.train_step(data)
            self.calls.assign_add(1)
            tf.cond(tf.equal(self.calls % self.k, 0), sync, lambda: False)
            return logs

        def function(iterator):
            return one(next(iterator))

        self.train_function = function
        return function


x, y = make_classification(3000, n_features=20, n_informative=8, n_classes=3, class_sep=1.5, random_state=6)
x = x.astype("float32")
inputs = tf.keras.Input((20,))
h = tf.keras.layers.Dense(64, activation="relu")(inputs)
model = Lookahead(inputs, tf.keras.layers.Dense(3)(h))
model.compile(tf.keras.optimizers.Adam(5e-3), tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
model.fit(x[:2400], y[:2400], epochs=10, batch_size=48, verbose=2)
print("test accuracy", model.evaluate(x[2400:], y[2400:], verbose=0)[1])
