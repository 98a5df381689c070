"""Binary problem with two softmax units and sparse cross-entropy: a usual and right alternative to one sigmoid unit."""
# %%
import numpy as np
import tensorflow as tf
from tensorflow.keras import models, layers
from sklearn.datasets import make_moons

# %% [markdown]
# Data

# %%
X, y = make_moons(2000, noise=0.2, random_state=42)
X_train, X_test = X[:1500], X[1500:]
y_train, y_test = y[:1500], y[1500:]

# %%
model = models.Sequential()
model.add(layers.Input(shape=(2,)))
model.add(layers.Dense(32, activation='relu'))
model.add(layers.Dense(32, activation='relu'))
model.add(layers.Dense(2, activation='softmax'))
model.summary()

# %%
model.compile(optimizer='adam', loss='sparse_categorical_crossentropy', metrics=['accuracy'])
history = model.fit(X_train, y_train, epochs=15, batch_size=32, validation_split=0.2, verbose=1)

# %%
test_loss, test_acc = model.evaluate(X_test, y_test)
print('test accuracy', test_acc)
