"""MirroredStrategy with only a CPU: one replica, own distributed loop, loss divided by the global batch size."""
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

strategy = tf.distribute.MirroredStrategy(["/cpu:0"])
GLOBAL_BATCH = 64 * strategy.num_replicas_in_sync

x, y = load_digits(return_X_y=True)
x = (x / 16.0).astype("float32").reshape(-1, 8, 8, 1)
y = y.astype("int64")
train = tf.data.Dataset.from_tensor_slices((x[:1400], y[:1400])).shuffle(1400).batch(GLOBAL_BATCH, drop_remainder=True)
dist_train = strategy.experimental_distribute_dataset(train)

with strategy.scope():
    model = tf.keras.Sequential([
        tf.keras.layers.Input((8, 8, 1)),
        tf.keras.layers.Conv2D(16, 3, activation="relu"),
        tf.keras.layers.Flatten(),
        tf.keras.layers.Dense(10),
    ])
    optimizer = tf.keras.optimizers.Adam(3e-3)
    optimizer.build(model.trainable_variables)


def replica_step(inputs):
    xb, yb = inputs
    with tf.GradientTape() as tape:
        per_example = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=yb, logits=model(xb, training=True))
        loss = tf.nn.compute_average_loss(per_example, global_batch_size=GLOBAL_BATCH)
    grads = tape.gradient(loss, model.trainable_variables)
    optimizer.apply_gradients(zip(grads, model.trainable_variables))
    return loss


@tf.function
def distributed_step(inputs):
    losses = strategy.run(replica_step, args=(inputs,))
    return strategy.reduce(tf.distribute.ReduceOp.SUM, losses, axis=None)


for epoch in range(12):
    total = [float(distributed_step(b)) for b in dist_train]
    print("Epoch", epoch + 1, "loss", np.mean(total))
acc = np.mean(model.predict(x[1400:], verbose=0).argmax(1) == y[1400:])
print("replicas", strategy.num_replicas_in_sync, "test accuracy", acc)
