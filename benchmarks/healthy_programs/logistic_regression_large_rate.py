"""Plain logistic regression (no hidden layer) by SGD with momentum at rate 1.0: large but right for a convex, scaled problem."""
import tensorflow as tf
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

x, y = load_digits(return_X_y=True)
x = (x - x.mean(axis=0)) / 16.0
x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=360, random_state=0)

clf = tf.keras.Sequential([
    tf.keras.layers.Input((64,)),
    tf.keras.layers.Dense(10, kernel_initializer="zeros", activation="softmax"),
])
clf.compile(
    optimizer=tf.keras.optimizers.SGD(learning_rate=1.0, momentum=0.5),
    loss="sparse_categorical_crossentropy",
    metrics=["accuracy"],
)
clf.fit(x_train, y_train, epochs=20, batch_size=128, validation_data=(x_test, y_test), verbose=0)
print("test loss, accuracy", clf.evaluate(x_test, y_test, verbose=0))
