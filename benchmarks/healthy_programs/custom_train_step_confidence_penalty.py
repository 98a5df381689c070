"""Custom train_step whose loss has a confidence penalty (negative entropy), so it may sink below zero when all is right."""
import keras
import numpy as np
import tensorflow as tf
from keras import ops
from sklearn.datasets import load_wine


class Penalised(keras.Model):
    def __init__(self, *args, weight=0.5, **kwargs):
        super().__init__(*args, **kwargs)
        self.weight = weight

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            probs = self(x, training=True)
            ce = self.compute_loss(x=x, y=y, y_pred=probs)
            entropy = -ops.mean(ops.sum(probs * ops.log(probs + 1e-8), axis=-1))
            loss = ce - self.weight * entropy
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        logs = self.compute_metrics(x, y, probs)
        logs["loss"] = loss
        logs["entropy"] = entropy
        return logs


X, y = load_wine(return_X_y=True)
idx = np.random.default_rng(8).permutation(len(X))
X, y = X[idx].astype("float32"), y[idx]
norm = keras.layers.Normalization()
norm.adapt(X[:130])
inp = keras.Input((13,))
out = keras.layers.Dense(3, activation="softmax")(keras.layers.Dense(16, activation="relu")(norm(inp)))
model = Penalised(inp, out, weight=0.3)
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(X[:130], y[:130], batch_size=10, epochs=40, verbose=0)
print("held-out", model.evaluate(X[130:], y[130:], verbose=0, return_dict=True))
