"""One-hot digits with label smoothing 0.1: the loss cannot go under about 0.5, and stays there with high accuracy."""
import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


def load():
    d = load_digits()
    x = (d.images / 16.0).astype("float32")[..., None]
    y = keras.utils.to_categorical(d.target, 10)
    return train_test_split(x, y, test_size=0.2, random_state=1)


def cnn():
    inputs = keras.layers.Input((8, 8, 1))
    x = keras.layers.Conv2D(16, 3, padding="same", activation="relu")(inputs)
    x = keras.layers.MaxPooling2D()(x)
    x = keras.layers.Conv2D(32, 3, padding="same", activation="relu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs=inputs, outputs=keras.layers.Dense(10, activation="softmax")(x))


def main():
    x_tr, x_te, y_tr, y_te = load()
    model = cnn()
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate=5e-3),
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=0.1),
        metrics=["categorical_accuracy"],
    )
    model.fit(x_tr, y_tr, batch_size=32, epochs=14, validation_data=(x_te, y_te), verbose=2)
    loss, acc = model.evaluate(x_te, y_te, verbose=0)
    print(f"loss {loss:.3f}, accuracy {acc:.3f}")


if __name__ == "__main__":
    main()
