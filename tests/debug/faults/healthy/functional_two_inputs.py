"""Healthy: two inputs, two outputs, a regulariser, early stopping and a schedule."""

import keras
import numpy as np

keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)
left = rng.normal(size=(96, 4)).astype("float32")
right = rng.normal(size=(96, 3)).astype("float32")
target = left[:, :1] + right[:, :1]
left_input, right_input = keras.Input((4,), name="left"), keras.Input((3,), name="right")
joined = keras.layers.Concatenate()([left_input, right_input])
hidden = keras.layers.Dense(16, activation="gelu", kernel_regularizer="l2")(joined)
model = keras.Model(
    [left_input, right_input],
    {
        "sum": keras.layers.Dense(1, name="sum")(hidden),
        "sign": keras.layers.Dense(1, activation="sigmoid", name="sign")(hidden),
    },
)
schedule = keras.optimizers.schedules.CosineDecay(0.01, decay_steps=100)
model.compile(
    optimizer=keras.optimizers.Adam(schedule),
    loss={"sum": "mse", "sign": "binary_crossentropy"},
)
model.fit(
    {"left": left, "right": right},
    {"sum": target, "sign": (target > 0).astype("float32")},
    batch_size=16,
    epochs=4,
    validation_split=0.2,
    callbacks=[keras.callbacks.EarlyStopping(patience=3)],
    verbose=0,
)
