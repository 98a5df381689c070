"""Endless Python generator with steps_per_epoch; each sample is new, so training and validation loss are alike."""
import numpy as np
from tensorflow.keras import layers, models


def gen(batch_size, seed):
    rng = np.random.RandomState(seed)
    while True:
        x = rng.rand(batch_size, 20, 1) - 0.5
        freq = rng.randint(1, 5, batch_size)
        phase = rng.rand(batch_size) * 2 * np.pi
        t = np.arange(20) / 20.0
        x[:, :, 0] += np.sin(2 * np.pi * freq[:, None] * t + phase[:, None])
        yield x.astype('float32'), freq - 1


model = models.Sequential([
    layers.Input((20, 1)),
    layers.Conv1D(16, 5, activation='relu'),
    layers.Conv1D(32, 5, activation='relu'),
    layers.GlobalMaxPooling1D(),
    layers.Dense(4, activation='softmax'),
])
model.compile(optimizer='rmsprop', loss='sparse_categorical_crossentropy', metrics=['acc'])
model.fit(gen(32, 0), steps_per_epoch=100, epochs=7, validation_data=gen(64, 1), validation_steps=10, verbose=2)
print('loss, acc on new data', model.evaluate(gen(100, 2), steps=10, verbose=0))
