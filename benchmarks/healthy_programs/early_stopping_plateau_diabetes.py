"""Diabetes regression with EarlyStopping and ReduceLROnPlateau; R2 about 0.45 is as good as this data set gets."""
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_diabetes
from sklearn.metrics import r2_score
from sklearn.model_selection import train_test_split

X, y = load_diabetes(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.25, random_state=5)
x_mean, x_std = X_train.mean(0), X_train.std(0)
y_mean, y_std = y_train.mean(), y_train.std()

model = tf.keras.Sequential([
    tf.keras.layers.Input((10,)),
    tf.keras.layers.Dense(32, activation='relu', kernel_regularizer=tf.keras.regularizers.l2(1e-3)),
    tf.keras.layers.Dense(1),
])
model.compile(optimizer=tf.keras.optimizers.Adam(learning_rate=1e-3), loss='mse')

callbacks = [
    tf.keras.callbacks.EarlyStopping(monitor='val_loss', patience=25, restore_best_weights=True),
    tf.keras.callbacks.ReduceLROnPlateau(monitor='val_loss', factor=0.3, patience=8, min_lr=1e-5),
]
history = model.fit((X_train - x_mean) / x_std, (y_train - y_mean) / y_std,
                    validation_split=0.2, epochs=120, batch_size=16, callbacks=callbacks, verbose=0)
print('stopped after', len(history.history['loss']), 'epochs; rates', sorted(set(np.round(history.history['learning_rate'], 7))))
pred = model.predict((X_test - x_mean) / x_std, verbose=0).ravel() * y_std + y_mean
print('test R2', r2_score(y_test, pred))
