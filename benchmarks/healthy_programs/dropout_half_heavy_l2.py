"""Dropout 0.5 and strong L2: the loss is mostly penalty at first, and evaluation beats training throughout."""
import keras
from keras import layers, regularizers
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import scale

X, y = load_breast_cancer(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(scale(X), y, random_state=3)

reg = regularizers.L2(0.02)
model = keras.Sequential([
    keras.Input((30,)),
    layers.Dense(128, activation="relu", kernel_regularizer=reg),
    layers.Dropout(0.5),
    layers.Dense(128, activation="relu", kernel_regularizer=reg),
    layers.Dropout(0.5),
    layers.Dense(1, activation="sigmoid", kernel_regularizer=reg),
])
model.compile(loss="binary_crossentropy", optimizer=keras.optimizers.Adam(1e-3), metrics=["accuracy"])
model.fit(X_train, y_train, epochs=20, batch_size=16, validation_data=(X_test, y_test), verbose=2)
print("test:", model.evaluate(X_test, y_test, verbose=0))
