"""98:2 imbalance with class_weight; weighted training loss lies above the validation loss, AUC is the figure that matters."""
import numpy as np
import keras
from keras import layers, metrics

rng = np.random.default_rng(12)


def simulate(n):
    y = (rng.random(n) < 0.02).astype("int32")
    x = rng.normal(size=(n, 12)).astype("float32")
    x[:, :5] += 1.1 * y[:, None]
    x[:, 5] *= 1 + y
    return x, y


def build_model():
    inp = layers.Input(shape=(12,))
    z = layers.Dense(32, activation="relu")(inp)
    z = layers.Dropout(0.3)(z)
    return keras.Model(inp, layers.Dense(1, activation="sigmoid")(z))


x_train, y_train = simulate(12000)
x_val, y_val = simulate(6000)
pos = y_train.sum()
weights = {0: len(y_train) / (2.0 * (len(y_train) - pos)), 1: len(y_train) / (2.0 * pos)}
print("class weights", weights)

model = build_model()
model.compile(optimizer="adam", loss="binary_crossentropy",
              metrics=[metrics.AUC(name="auc"), metrics.Recall(name="recall")])
model.fit(x_train, y_train, batch_size=128, epochs=8, class_weight=weights,
          validation_data=(x_val, y_val), verbose=2)
print("val:", model.evaluate(x_val, y_val, batch_size=512, verbose=0, return_dict=True))
