"""Ordinal regression with cumulative targets (1,1,0,0) and sigmoid: several ones in a row, not one-hot, and that is right."""
import numpy as np
import keras

LEVELS = 5
rng = np.random.default_rng(30)
X = rng.normal(size=(5000, 8)).astype("float32")
latent = X[:, 0] + 0.8 * X[:, 1] - 0.6 * X[:, 2] * X[:, 3] + rng.logistic(0, 0.25, 5000)
grade = np.digitize(latent, [-1.5, -0.5, 0.5, 1.5])
cumulative = (grade[:, None] > np.arange(LEVELS - 1)).astype("float32")


class Thresholds(keras.layers.Layer):
    def build(self, shape):
        self.cut = self.add_weight(shape=(LEVELS - 1,), initializer=keras.initializers.Constant(np.array([-1.5, -0.5, 0.5, 1.5])))

    def call(self, score):
        return keras.ops.sigmoid(score - self.cut)


inp = keras.Input((8,))
h = keras.layers.Dense(32, activation="relu")(inp)
model = keras.Model(inp, Thresholds()(keras.layers.Dense(1)(h)))
model.compile(optimizer=keras.optimizers.Adam(5e-3), loss="binary_crossentropy")
model.fit(X[:4000], cumulative[:4000], batch_size=64, epochs=12, verbose=2)
pred = (model.predict(X[4000:], verbose=0) > 0.5).sum(1)
print("mean absolute grade error %.3f, of the median %.3f" % (
    np.abs(pred - grade[4000:]).mean(), np.abs(np.median(grade) - grade[4000:]).mean()))
