"""Training cut in two by a tf.train.Checkpoint: the second half starts from a fresh model whose loss at once is low, as it was restored."""
import os
import tempfile

import numpy as np
import tensorflow as tf
from sklearn.datasets import load_wine

X, y = load_wine(return_X_y=True)
order = np.random.RandomState(0).permutation(len(X))
X, y = X[order], y[order]
mu, sd = X[:130].mean(0), X[:130].std(0)
X = ((X - mu) / sd).astype("float32")
loss_fn = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def session(directory, steps):
    model = tf.keras.Sequential([tf.keras.layers.Input((13,)), tf.keras.layers.Dense(16, "relu"), tf.keras.layers.Dense(3)])
    opt = tf.keras.optimizers.Adam(2e-3)
    opt.build(model.trainable_variables)
    counter = tf.Variable(0, dtype=tf.int64)
    ckpt = tf.train.Checkpoint(step=counter, optimizer=opt, net=model)
    manager = tf.train.CheckpointManager(ckpt, directory, max_to_keep=2)
    ckpt.restore(manager.latest_checkpoint)
    print("from", manager.latest_checkpoint or "scratch")

    @tf.function
    def train(xb, yb):
        with tf.GradientTape() as tape:
            loss = loss_fn(yb, model(xb, training=True))
        opt.apply_gradients(zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables))
        return loss

    data = iter(tf.data.Dataset.from_tensor_slices((X[:130], y[:130])).shuffle(130).repeat().batch(16))
    for _ in range(steps):
        loss = train(*next(data))
        counter.assign_add(1)
        if int(counter) % 50 == 0:
            manager.save()
            print("step", int(counter), "loss", float(loss))
    return model


with tempfile.TemporaryDirectory() as tmp:
    session(os.path.join(tmp, "ck"), 200)
    net = session(os.path.join(tmp, "ck"), 150)
acc = (net(X[130:]).numpy().argmax(1) == y[130:]).mean()
print("test accuracy", acc)
