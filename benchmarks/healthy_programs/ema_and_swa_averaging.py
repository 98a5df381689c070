"""AdamW with use_ema and a hand-made SWA over the last epochs: weights jump at the end of fit when the averages are put in."""
import numpy as np
import keras
from sklearn.datasets import make_classification

x, y = make_classification(4000, n_features=30, n_informative=10, n_classes=4, class_sep=1.3, random_state=2)
x = x.astype("float32")


class SWA(keras.callbacks.Callback):
    def __init__(self, start):
        super().__init__()
        self.start, self.n, self.mean = start, 0, None

    def on_epoch_end(self, epoch, logs=None):
        if epoch >= self.start:
            w = self.model.get_weights()
            self.n += 1
            self.mean = w if self.mean is None else [m + (v - m) / self.n for m, v in zip(self.mean, w)]

    def on_train_end(self, logs=None):
        self.model.set_weights(self.mean)


def net():
    return keras.Sequential([keras.Input((30,)), keras.layers.Dense(64, "relu"), keras.layers.Dense(64, "relu"), keras.layers.Dense(4, "softmax")])


ema = net()
ema.compile(keras.optimizers.AdamW(3e-3, use_ema=True, ema_momentum=0.98), "sparse_categorical_crossentropy", metrics=["accuracy"])
ema.fit(x[:3200], y[:3200], epochs=8, batch_size=64, verbose=2)
swa = net()
swa.compile(keras.optimizers.SGD(0.05, momentum=0.9), "sparse_categorical_crossentropy", metrics=["accuracy"])
swa.fit(x[:3200], y[:3200], epochs=10, batch_size=64, verbose=2, callbacks=[SWA(6)])
for name, m in (("ema", ema), ("swa", swa)):
    print(name, "test accuracy", m.evaluate(x[3200:], y[3200:], verbose=0)[1])
