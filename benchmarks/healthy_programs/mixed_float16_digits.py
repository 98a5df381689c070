"""mixed_float16 with dynamic loss scale: float32 output layer, scaled loss inside; a skipped step or so at the start is normal."""
import keras
import numpy as np
from keras import layers
from sklearn.datasets import load_digits

keras.mixed_precision.set_global_policy("mixed_float16")
x, y = load_digits(return_X_y=True)
x = (x / 16).astype("float32")

inputs = keras.Input((64,))
h = layers.Dense(64, activation="relu")(inputs)
h = layers.Dense(64, activation="relu")(h)
outputs = layers.Activation("softmax", dtype="float32")(layers.Dense(10)(h))
model = keras.Model(inputs, outputs)
print(model.layers[1].compute_dtype, model.layers[1].variable_dtype)
model.compile(optimizer=keras.optimizers.Adam(1e-3), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
print(type(model.optimizer).__name__)
model.fit(x[:1400], y[:1400], batch_size=40, epochs=12, validation_data=(x[1400:], y[1400:]), verbose=2)
print("accuracy", model.evaluate(x[1400:], y[1400:], verbose=0)[1])
