"""Autoencoder: x is both input and target, which is no leak here."""
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

x = load_digits().data.astype('float32') / 16.
x_train, x_test = x[:1500], x[1500:]

encoding_dim = 10
input_img = tf.keras.Input(shape=(64,))
encoded = tf.keras.layers.Dense(48, activation='relu')(input_img)
encoded = tf.keras.layers.Dense(encoding_dim)(encoded)
decoded = tf.keras.layers.Dense(48, activation='relu')(encoded)
decoded = tf.keras.layers.Dense(64, activation='sigmoid')(decoded)

autoencoder = tf.keras.Model(input_img, decoded)
autoencoder.compile(optimizer='adam', loss='mse')
autoencoder.fit(x_train, x_train,
                epochs=35,
                batch_size=64,
                shuffle=True,
                validation_data=(x_test, x_test),
                verbose=0)
mse = autoencoder.evaluate(x_test, x_test, verbose=0)
print('test mse', mse, 'mean image mse', np.mean((x_test - x_train.mean(0)) ** 2))
