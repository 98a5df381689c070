"""Advantage actor-critic with a Gaussian policy on a point mass, environment in TensorFlow; loss = policy + value - entropy, sign means nothing."""
import argparse

import tensorflow as tf


class ActorCritic(tf.keras.Model):
    def __init__(self):
        super().__init__()
        self.body = tf.keras.layers.Dense(64, activation="tanh")
        self.mean = tf.keras.layers.Dense(1, kernel_initializer="zeros")
        self.value_body = tf.keras.layers.Dense(64, activation="tanh")
        self.value = tf.keras.layers.Dense(1)
        self.log_std = self.add_weight(shape=(), initializer="zeros", name="log_std")

    def call(self, s):
        return self.mean(self.body(s)), self.value(self.value_body(s))[:, 0]


def env_step(s, a):
    pos, vel = s[:, :1], s[:, 1:]
    vel = vel + 0.2 * tf.clip_by_value(a, -2.0, 2.0)
    pos = pos + 0.2 * vel
    reward = -(pos ** 2 + 0.1 * vel ** 2)[:, 0]
    return tf.concat([pos, vel], 1), reward


def build_update(model, opt, n, horizon, gamma):
    @tf.function
    def update():
        s = tf.random.uniform((n, 2), -1.0, 1.0)
        states, actions, rewards = [], [], []
        for _ in range(horizon):
            mu, _ = model(s)
            a = mu + tf.exp(model.log_std) * tf.random.normal(tf.shape(mu))
            states.append(s)
            actions.append(a)
            s, r = env_step(s, a)
            rewards.append(r)
        _, g = model(s)
        returns = []
        for r in reversed(rewards):
            g = r + gamma * g
            returns.insert(0, g)
        S, A, G = tf.concat(states, 0), tf.concat(actions, 0), tf.stop_gradient(tf.concat(returns, 0))
        with tf.GradientTape() as tape:
            mu, v = model(S)
            adv = tf.stop_gradient(G - v)
            adv = (adv - tf.reduce_mean(adv)) / (tf.math.reduce_std(adv) + 1e-6)
            logp = -0.5 * ((tf.stop_gradient(A) - mu)[:, 0] / tf.exp(model.log_std)) ** 2 - model.log_std
            loss = -tf.reduce_mean(logp * adv) + 0.5 * tf.reduce_mean((G - v) ** 2) - 0.001 * model.log_std
        grads = tape.gradient(loss, model.trainable_variables)
        grads, _ = tf.clip_by_global_norm(grads, 1.0)
        opt.apply_gradients(zip(grads, model.trainable_variables))
        return loss, tf.reduce_mean(tf.add_n(rewards))
    return update


def main(argv=None):
    p = argparse.ArgumentParser()
    p.add_argument("--updates", type=int, default=500)
    p.add_argument("--lr", type=float, default=5e-3)
    args = p.parse_args(argv)
    tf.random.set_seed(5)
    model = ActorCritic()
    model(tf.zeros((1, 2)))
    update = build_update(model, tf.keras.optimizers.Adam(args.lr), 64, 20, 0.95)
    log = [[float(v) for v in update()] for _ in range(args.updates)]
    for i in range(0, args.updates, 100):
        print(i, "loss %.3f return %.2f" % tuple(log[i]))
    first, last = (sum(r for _, r in part) / 20 for part in (log[:20], log[-20:]))
    print("return first 20 updates %.2f, last 20 %.2f" % (first, last))


if __name__ == "__main__":
    main()
