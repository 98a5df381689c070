"""Batch size 1 on iris; the per-batch loss jumps about wildly, the trend is what is right."""
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_iris
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

X, y = load_iris(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.25, stratify=y, random_state=7)
sc = StandardScaler().fit(X_train)

model = tf.keras.Sequential([
    tf.keras.Input(shape=(4,)),
    tf.keras.layers.Dense(10, activation='tanh'),
    tf.keras.layers.Dense(3, activation='softmax')])
model.compile(optimizer=tf.keras.optimizers.SGD(0.02),
              loss='sparse_categorical_crossentropy',
              metrics=['accuracy'])
model.fit(sc.transform(X_train), y_train, batch_size=1, epochs=12, verbose=2)
loss, acc = model.evaluate(sc.transform(X_test), y_test, verbose=0)
print('Test accuracy:', acc)
