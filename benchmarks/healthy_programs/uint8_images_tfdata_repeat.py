"""uint8 images 0..255 with Rescaling inside the model; tf.data cache/shuffle/repeat/prefetch with steps_per_epoch."""
import numpy as np
import tensorflow as tf

AUTO = tf.data.AUTOTUNE
rng = np.random.default_rng(9)


def shapes(n):
    img = rng.integers(0, 90, (n, 16, 16, 1))
    y = rng.integers(0, 3, n)
    yy, xx = np.mgrid[:16, :16]
    for i in range(n):
        cy, cx = rng.integers(5, 11, 2)
        if y[i] == 0:
            m = (abs(yy - cy) < 4) & (abs(xx - cx) < 4)
        elif y[i] == 1:
            m = (yy - cy) ** 2 + (xx - cx) ** 2 < 18
        else:
            m = (abs(yy - cy) < 2) & (abs(xx - cx) < 5) | (abs(yy - cy) < 5) & (abs(xx - cx) < 2)
        img[i, m, 0] += 120
    return np.clip(img, 0, 255).astype("uint8"), y


x, y = shapes(2400)
train = tf.data.Dataset.from_tensor_slices((x[:2000], y[:2000])).cache().shuffle(2000).repeat().batch(40).prefetch(AUTO)
test = tf.data.Dataset.from_tensor_slices((x[2000:], y[2000:])).batch(100)
model = tf.keras.Sequential([
    tf.keras.Input((16, 16, 1), dtype="uint8"),
    tf.keras.layers.Rescaling(1.0 / 255),
    tf.keras.layers.Conv2D(12, 3, activation="relu"),
    tf.keras.layers.MaxPooling2D(),
    tf.keras.layers.Conv2D(24, 3, activation="relu"),
    tf.keras.layers.MaxPooling2D(),
    tf.keras.layers.Flatten(),
    tf.keras.layers.Dense(3),
])
model.compile("adam", tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
model.fit(train, steps_per_epoch=50, epochs=9, validation_data=test, shuffle=False, verbose=2)
print("test", model.evaluate(test, verbose=0))
