"""Five-fold cross validation: five models one after another, each starting again from a high loss."""
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import StratifiedKFold


def make_model(train_x):
    norm = tf.keras.layers.Normalization()
    norm.adapt(train_x)
    model = tf.keras.Sequential([
        tf.keras.Input((30,)),
        norm,
        tf.keras.layers.Dense(16, activation="relu"),
        tf.keras.layers.Dense(1, activation="sigmoid"),
    ])
    model.compile(optimizer=tf.keras.optimizers.Adam(5e-3), loss="binary_crossentropy", metrics=["accuracy"])
    return model


X, y = load_breast_cancer(return_X_y=True)
X = X.astype("float32")
scores = []
for k, (tr, te) in enumerate(StratifiedKFold(5, shuffle=True, random_state=0).split(X, y)):
    tf.keras.backend.clear_session()
    model = make_model(X[tr])
    model.fit(X[tr], y[tr], epochs=12, batch_size=16, verbose=0)
    _, acc = model.evaluate(X[te], y[te], verbose=0)
    print("fold", k, "accuracy %.3f" % acc)
    scores.append(acc)
print("mean accuracy %.3f +/- %.3f" % (np.mean(scores), np.std(scores)))
