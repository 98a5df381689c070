"""TF1 MonitoredTrainingSession with hooks, global step, decayed rate and an in-graph dataset; polynomial regression."""
import tempfile

import numpy as np
import tensorflow as tf

v1 = tf.compat.v1


def input_fn():
    rng = np.random.RandomState(0)
    x = rng.uniform(-1, 1, (4000, 1)).astype(np.float32)
    y = (1.0 - 2.0 * x + 0.5 * x ** 2 + 3.0 * x ** 3 + rng.normal(0, 0.1, x.shape)).astype(np.float32)
    ds = v1.data.Dataset.from_tensor_slices((x, y)).shuffle(4000).repeat().batch(64)
    return v1.data.make_one_shot_iterator(ds).get_next()


class Collect(v1.train.SessionRunHook):
    def __init__(self, tensor):
        self.tensor, self.values = tensor, []

    def before_run(self, run_context):
        return v1.train.SessionRunArgs(self.tensor)

    def after_run(self, run_context, run_values):
        self.values.append(float(run_values.results))


with tf.Graph().as_default():
    x, y = input_fn()
    powers = tf.concat([x, x ** 2, x ** 3], axis=1)
    w = v1.get_variable("w", [3, 1], initializer=v1.zeros_initializer())
    b = v1.get_variable("b", [1], initializer=v1.zeros_initializer())
    loss = tf.reduce_mean(tf.square(tf.matmul(powers, w) + b - y))
    step = v1.train.get_or_create_global_step()
    rate = v1.train.exponential_decay(0.3, step, 500, 0.5)
    train_op = v1.train.MomentumOptimizer(rate, 0.9).minimize(loss, global_step=step)
    collect = Collect(loss)
    with tempfile.TemporaryDirectory() as d:
        hooks = [v1.train.StopAtStepHook(last_step=1500), v1.train.NanTensorHook(loss), collect]
        with v1.train.MonitoredTrainingSession(checkpoint_dir=d, hooks=hooks, save_checkpoint_steps=500, log_step_count_steps=None) as sess:
            while not sess.should_stop():
                _, wv, bv = sess.run([train_op, w, b])
print("coefficients", wv.ravel(), bv, "loss %.3f -> %.4f" % (collect.values[0], np.mean(collect.values[-50:])))
