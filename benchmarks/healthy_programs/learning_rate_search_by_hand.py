"""Hand-made search over learning rates: the worst ones (1e-6, 3.0) are there to be found wanting; the best is trained to the end."""
import tensorflow as tf
from tensorflow.keras import layers, models
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split

X, y = load_wine(return_X_y=True)
X = (X - X.mean(0)) / X.std(0)
x_tr, x_te, y_tr, y_te = train_test_split(X, y, test_size=0.25, random_state=0, stratify=y)
x_tr, x_va, y_tr, y_va = train_test_split(x_tr, y_tr, test_size=0.25, random_state=0, stratify=y_tr)


def build_and_train(lr, epochs):
    tf.keras.utils.set_random_seed(0)
    m = models.Sequential([layers.Input((13,)), layers.Dense(12, activation="relu"), layers.Dense(3, activation="softmax")])
    m.compile(tf.keras.optimizers.SGD(lr), "sparse_categorical_crossentropy", metrics=["accuracy"])
    m.fit(x_tr, y_tr, batch_size=8, epochs=epochs, verbose=0)
    return m, m.evaluate(x_va, y_va, verbose=0)


results = {}
for lr in [1e-6, 1e-3, 1e-2, 1e-1, 3.0]:
    _, (val_loss, val_acc) = build_and_train(lr, 10)
    results[lr] = val_loss
    print("lr", lr, "val loss %.4f acc %.3f" % (val_loss, val_acc))
best = min(results, key=results.get)
model, _ = build_and_train(best, 25)
print("best rate", best, "test accuracy", model.evaluate(x_te, y_te, verbose=0)[1])
