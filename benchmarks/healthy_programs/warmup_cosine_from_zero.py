"""Warm-up and cosine decay: the rate begins at 0 and ends at 0, so first and last steps change nothing."""
from tensorflow import keras
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

BATCH = 32
EPOCHS = 14


def get_data():
    X, y = load_digits(return_X_y=True)
    return train_test_split((X / 8.0 - 1.0).astype("float32"), y, test_size=0.2, random_state=0, stratify=y)


def run():
    x_train, x_test, y_train, y_test = get_data()
    total = EPOCHS * (len(x_train) // BATCH + 1)
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0, warmup_target=5e-3, warmup_steps=total // 10, decay_steps=total - total // 10)
    model = keras.Sequential([
        keras.layers.Dense(96, activation="gelu"),
        keras.layers.LayerNormalization(),
        keras.layers.Dense(96, activation="gelu"),
        keras.layers.Dense(10),
    ])
    model.compile(keras.optimizers.AdamW(schedule, weight_decay=1e-2),
                  keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    model.fit(x_train, y_train, batch_size=BATCH, epochs=EPOCHS, verbose=2)
    return model.evaluate(x_test, y_test, verbose=0)


print("final rate ends near 0; test loss, accuracy:", run())
