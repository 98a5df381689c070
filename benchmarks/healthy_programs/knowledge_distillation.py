"""Distillation at temperature 4: teacher first, then a student on soft targets; the KL term times T^2 sets the loss's scale."""
import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops
from sklearn.datasets import load_digits


class Distiller(keras.Model):
    def __init__(self, student, teacher, temperature=4.0, alpha=0.3):
        super().__init__()
        self.student, self.teacher = student, teacher
        self.temperature, self.alpha = temperature, alpha
        self.teacher.trainable = False

    def call(self, x):
        return self.student(x)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        hard = ops.mean(keras.losses.sparse_categorical_crossentropy(y, y_pred, from_logits=True))
        t = self.temperature
        soft = ops.mean(keras.losses.kl_divergence(ops.softmax(self.teacher(x, training=False) / t), ops.softmax(y_pred / t)))
        return self.alpha * hard + (1 - self.alpha) * soft * t * t


def net(*widths):
    return keras.Sequential([keras.Input((64,))] + [layers.Dense(w, activation="relu") for w in widths] + [layers.Dense(10)])


x, y = load_digits(return_X_y=True)
order = np.random.default_rng(7).permutation(len(x))
x, y = (x[order] / 16).astype("float32"), y[order]
ce = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
teacher = net(128, 128)
teacher.compile("adam", ce, metrics=["accuracy"])
teacher.fit(x[:1400], y[:1400], batch_size=32, epochs=8, verbose=2)
distiller = Distiller(net(16), teacher)
distiller.compile(optimizer=keras.optimizers.Adam(5e-3), metrics=["accuracy"])
distiller.fit(x[:1400], y[:1400], batch_size=32, epochs=14, verbose=2)
student_acc = (distiller.predict(x[1400:], verbose=0).argmax(1) == y[1400:]).mean()
print("teacher", teacher.evaluate(x[1400:], y[1400:], verbose=0)[1], "student", student_acc)
