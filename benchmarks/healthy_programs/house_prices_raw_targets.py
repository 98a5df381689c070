"""Price regression with targets of 3e5: the de-normalisation sits in the model, so the MSE is near 1e10 and falls."""
import numpy as np
import keras
from keras import layers

keras.utils.set_random_seed(4)
rng = np.random.default_rng(4)
n = 4000
area = rng.gamma(9, 14, n)
rooms = np.clip((area / 28 + rng.normal(0, 1, n)).round(), 1, 9)
age = rng.uniform(0, 90, n)
dist = rng.exponential(9, n)
price = 90_000 + 1900 * area + 8000 * rooms - 700 * age + 120_000 * np.exp(-dist / 6) + rng.normal(0, 15_000, n)
x = np.stack([area, rooms, age, dist], 1).astype("float32")
y = price.astype("float32")[:, None]
x_tr, x_te, y_tr, y_te = x[:3200], x[3200:], y[:3200], y[3200:]

norm = layers.Normalization()
norm.adapt(x_tr)
denorm = layers.Rescaling(scale=float(y_tr.std()), offset=float(y_tr.mean()))

inputs = keras.Input((4,))
h = layers.Dense(32, activation="relu")(norm(inputs))
h = layers.Dense(32, activation="relu")(h)
outputs = denorm(layers.Dense(1)(h))
model = keras.Model(inputs, outputs)
model.compile(optimizer=keras.optimizers.Adam(3e-3), loss="mse", metrics=["mae"])
model.fit(x_tr, y_tr, batch_size=64, epochs=25, validation_split=0.1, verbose=2)
pred = model.predict(x_te, verbose=0)
r2 = 1 - ((pred - y_te) ** 2).sum() / ((y_te - y_te.mean()) ** 2).sum()
print("test R2: %.3f" % r2)
