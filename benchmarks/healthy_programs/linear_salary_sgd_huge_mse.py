"""Linear model on salaries of 1e5 by SGD: for a linear least-squares problem the right rate does not depend on the target scale, so MSE starts at 1e10."""
import numpy as np
import tensorflow as tf

np.random.seed(0)
years = np.random.uniform(0, 35, 3000)
grade = np.random.randint(1, 8, 3000)
remote = np.random.randint(0, 2, 3000)
X = np.column_stack([years, grade, remote]).astype(np.float32)
y = (38000 + 1400 * years + 9500 * grade - 3000 * remote + np.random.normal(0, 6000, 3000)).astype(np.float32)
X = (X - X.mean(axis=0)) / X.std(axis=0)

model = tf.keras.models.Sequential()
model.add(tf.keras.layers.Input(shape=(3,)))
model.add(tf.keras.layers.Dense(1))
model.compile(loss='mean_squared_error', optimizer=tf.keras.optimizers.SGD(learning_rate=0.02))
history = model.fit(X, y, epochs=15, batch_size=50, verbose=0)
print(['%.3g' % v for v in history.history['loss']])

pred = model.predict(X, verbose=0).ravel()
print('R2 =', 1 - np.var(y - pred) / np.var(y))
