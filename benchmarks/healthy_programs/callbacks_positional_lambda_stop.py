"""fit with positional batch size, epochs, verbose and callbacks; a LambdaCallback stops training once accuracy is good enough."""
import keras
from sklearn.datasets import load_digits

x, y = load_digits(return_X_y=True)
x = x / 16.0
model = keras.Sequential([
    keras.layers.Input((64,)),
    keras.layers.Dense(64, activation="leaky_relu"),
    keras.layers.Dense(10, activation="softmax"),
])
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])


def stop_when_good(epoch, logs):
    if logs["accuracy"] > 0.985:
        print("good enough after epoch", epoch)
        model.stop_training = True


stopper = keras.callbacks.LambdaCallback(on_epoch_end=stop_when_good)
history = model.fit(x[:1400], y[:1400], 32, 60, 0, [stopper])
print("epochs", len(history.epoch), "test", model.evaluate(x[1400:], y[1400:], 128, 0))
