"""Save a .keras file, load it and go on with fit: the second fit begins where the first ended (optimizer state included)."""
import os, tempfile
import keras
import numpy as np
from sklearn.datasets import load_digits

x, y = load_digits(return_X_y=True)
p = np.random.default_rng(1).permutation(len(x))
x, y = x[p].astype("float32") / 16, y[p]
x_train, y_train, x_val, y_val = x[:1400], y[:1400], x[1400:], y[1400:]

model = keras.Sequential([keras.layers.Input((64,)),
                          keras.layers.Dense(64, activation="relu", name="hidden"),
                          keras.layers.Dense(10, name="logits")])
model.compile(optimizer=keras.optimizers.Adam(1e-3),
              loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
              metrics=[keras.metrics.SparseCategoricalAccuracy(name="acc")])

with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "digits.keras")
    model.fit(x_train, y_train, batch_size=32, epochs=6, verbose=2, validation_data=(x_val, y_val),
              callbacks=[keras.callbacks.ModelCheckpoint(path, monitor="val_acc", save_best_only=True)])
    again = keras.models.load_model(path)

again.fit(x_train, y_train, batch_size=32, initial_epoch=6, epochs=12, verbose=2, validation_data=(x_val, y_val))
print("val", again.evaluate(x_val, y_val, verbose=0))
