"""fit with jit_compile=True (XLA); the first step is slow for compiling only."""
import numpy as np
import keras


rng = np.random.default_rng(14)
X = rng.normal(size=(4096, 8)).astype("float32")
w = rng.normal(size=(8,))
target = (np.sin(X @ w / 2) + X[:, 0] * X[:, 1] * 0.3 + rng.normal(0, 0.05, len(X))).astype("float32")

model = keras.Sequential()
model.add(keras.Input((8,)))
for width in (64, 64):
    model.add(keras.layers.Dense(width, activation="silu"))
model.add(keras.layers.Dense(1))
model.compile(optimizer=keras.optimizers.Adam(3e-3), loss="mse", jit_compile=True)
model.fit(X[:3584], target[:3584], batch_size=128, epochs=20, verbose=2)

# held-out rows
mse = float(np.mean((model.predict(X[3584:], batch_size=512, verbose=0)[:, 0] - target[3584:]) ** 2))
print("test mse %.4f, variance %.4f" % (mse, target[3584:].var()))
