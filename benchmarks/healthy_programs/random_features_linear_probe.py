"""Linear probe on 1024 fixed random ReLU features: the big first layer is frozen on purpose, one layer learns."""
import keras
from sklearn.datasets import make_moons

x, y = make_moons(4000, noise=0.25, random_state=0)
x = ((x - x.mean(0)) / x.std(0)).astype("float32")

features = keras.layers.Dense(
    1024,
    activation="relu",
    kernel_initializer="random_normal",
    bias_initializer=keras.initializers.RandomUniform(-0.1, 0.1),
)
features.trainable = False

model = keras.Sequential([
    keras.Input((2,)),
    keras.layers.Rescaling(10.0),
    features,
    keras.layers.Dense(1, activation="sigmoid"),
])
model.compile(keras.optimizers.Adam(5e-3), "binary_crossentropy", metrics=["accuracy"])
model.summary()
model.fit(x[:3000], y[:3000], epochs=15, batch_size=64, validation_data=(x[3000:], y[3000:]), verbose=2)
print("trainable arrays", len(model.trainable_variables), "test", model.evaluate(x[3000:], y[3000:], verbose=0))
