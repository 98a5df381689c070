"""Three heads with three losses (softmax CE, sigmoid BCE, MSE) and loss weights; the sum of them is the loss reported."""
import numpy as np
import keras
from keras import layers
from sklearn.datasets import load_digits

d = load_digits()
x = (d.images / 16.0).astype("float32")[..., None]
which = d.target
is_odd = (which % 2).astype("float32")
ink = x.mean((1, 2, 3))
ink = (ink - ink[:1400].mean()) / ink[:1400].std()

inp = keras.Input((8, 8, 1), name="image")
h = layers.Conv2D(24, 3, activation="relu")(inp)
h = layers.Flatten()(h)
h = layers.Dense(64, activation="relu")(h)
model = keras.Model(inp, {
    "digit": layers.Dense(10, activation="softmax", name="digit")(h),
    "odd": layers.Dense(1, activation="sigmoid", name="odd")(h),
    "ink": layers.Dense(1, name="ink")(h),
})
model.compile(
    optimizer="adam",
    loss={"digit": "sparse_categorical_crossentropy", "odd": "binary_crossentropy", "ink": "mse"},
    loss_weights={"digit": 1.0, "odd": 0.5, "ink": 0.25},
    metrics={"digit": ["accuracy"], "odd": ["accuracy"], "ink": ["mae"]},
)
targets = {"digit": which, "odd": is_odd, "ink": ink}
model.fit(x[:1400], {k: v[:1400] for k, v in targets.items()}, batch_size=32, epochs=10, verbose=2)
print(model.evaluate(x[1400:], {k: v[1400:] for k, v in targets.items()}, verbose=0, return_dict=True))
