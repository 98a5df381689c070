"""steps_per_execution=10: callbacks see every tenth step only, logs come in lumps."""
import numpy as np
import keras


class Count(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append((batch, logs["loss"]))


rng = np.random.default_rng(2)
t = rng.uniform(-3, 3, (6400, 1)).astype("float32")
f = np.concatenate([np.sin(t), np.cos(2 * t)], 1) + rng.normal(0, 0.05, (6400, 2))
model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(48, "tanh"), keras.layers.Dense(48, "tanh"), keras.layers.Dense(2)])
model.compile(optimizer=keras.optimizers.RMSprop(2e-3), loss="mse", steps_per_execution=10)
cb = Count()
model.fit(t[:5120], f[:5120], batch_size=64, epochs=20, callbacks=[cb], verbose=2)
print("callback calls", len(cb.seen))
print("test mse", model.evaluate(t[5120:], f[5120:], verbose=0), "variance", f[5120:].var(0).mean())
