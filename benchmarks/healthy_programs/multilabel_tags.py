"""Multi-label tagging with 15 rare tags, sigmoid outputs and BCE; binary accuracy starts high and exact-match at 0."""
import numpy as np
from tensorflow import keras
from tensorflow.keras import layers
from sklearn.datasets import make_multilabel_classification
from sklearn.metrics import f1_score

X, Y = make_multilabel_classification(5000, n_features=60, n_classes=15, n_labels=3, length=300, random_state=3)
X = np.log1p(X).astype("float32")
X = (X - X[:4000].mean(0)) / (X[:4000].std(0) + 1e-6)
Y = Y.astype("float32")


class ExactMatch(keras.metrics.Metric):
    def __init__(self, name="exact", **kw):
        super().__init__(name=name, **kw)
        self.hits = self.add_weight(name="hits", initializer="zeros")
        self.count = self.add_weight(name="count", initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        same = keras.ops.all(keras.ops.equal(y_true > 0.5, y_pred > 0.5), axis=-1)
        self.hits.assign_add(keras.ops.sum(keras.ops.cast(same, "float32")))
        self.count.assign_add(keras.ops.cast(keras.ops.shape(y_true)[0], "float32"))

    def result(self):
        return self.hits / (self.count + 1e-9)


model = keras.Sequential([
    layers.Dense(128, activation="relu"),
    layers.Dropout(0.2),
    layers.Dense(15, activation="sigmoid"),
])
model.compile(loss="binary_crossentropy", optimizer="adam", metrics=["binary_accuracy", ExactMatch()])
model.fit(X[:4000], Y[:4000], validation_data=(X[4000:], Y[4000:]), epochs=12, batch_size=64, verbose=2)
pred = model.predict(X[4000:], verbose=0) > 0.5
print("micro F1 = %.3f; share of positives %.3f" % (f1_score(Y[4000:], pred, average="micro"), Y.mean()))
