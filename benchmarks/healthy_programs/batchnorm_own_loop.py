"""BatchNormalization in an own tf.function loop: training=True in the step and False in the test, with Python-side epoch metrics."""
import time

import numpy as np
import tensorflow as tf
from tensorflow import keras
from tensorflow.keras import layers
from sklearn.datasets import load_digits

images, labels = load_digits(return_X_y=True)
images = images.reshape(-1, 8, 8, 1).astype(np.float32) / 16
train_ds = tf.data.Dataset.from_tensor_slices((images[:1400], labels[:1400])).shuffle(1400).batch(50)
test_ds = tf.data.Dataset.from_tensor_slices((images[1400:], labels[1400:])).batch(200)

model = keras.Sequential([
    layers.Input((8, 8, 1)),
    layers.Conv2D(16, 3, padding="same", use_bias=False), layers.BatchNormalization(momentum=0.9), layers.ReLU(),
    layers.Conv2D(32, 3, strides=2, padding="same", use_bias=False), layers.BatchNormalization(momentum=0.9), layers.ReLU(),
    layers.GlobalAveragePooling2D(), layers.Dense(10),
])
loss_object = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
optimizer = keras.optimizers.Adam(2e-3)
train_loss, train_acc = keras.metrics.Mean(), keras.metrics.SparseCategoricalAccuracy()
test_acc = keras.metrics.SparseCategoricalAccuracy()


@tf.function
def train_step(x, y):
    with tf.GradientTape() as tape:
        predictions = model(x, training=True)
        loss = loss_object(y, predictions)
    gradients = tape.gradient(loss, model.trainable_variables)
    optimizer.apply_gradients(zip(gradients, model.trainable_variables))
    train_loss(loss)
    train_acc(y, predictions)


@tf.function
def test_step(x, y):
    test_acc(y, model(x, training=False))


for epoch in range(12):
    for m in (train_loss, train_acc, test_acc):
        m.reset_state()
    start = time.time()
    for x, y in train_ds:
        train_step(x, y)
    for x, y in test_ds:
        test_step(x, y)
    print(f"epoch {epoch}: loss {train_loss.result():.4f} acc {train_acc.result():.4f} "
          f"test acc {test_acc.result():.4f} ({time.time() - start:.1f}s)")
