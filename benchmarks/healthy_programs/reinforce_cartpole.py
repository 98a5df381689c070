"""REINFORCE with a moving baseline on a home-made cart-pole; the surrogate loss is noisy, often negative and means nothing by itself."""
import numpy as np
import tensorflow as tf
from tensorflow.keras import Sequential
from tensorflow.keras.layers import Dense, Input
from tensorflow.keras.optimizers import Adam

N_ENV, HORIZON, UPDATES = 24, 150, 220
rng = np.random.default_rng(0)
tf.random.set_seed(0)


def physics(s, action):
    x, v, th, w = s.T
    force = np.where(action == 1, 10.0, -10.0)
    c, sn = np.cos(th), np.sin(th)
    tmp = (force + 0.05 * w ** 2 * sn) / 1.1
    acc_th = (9.8 * sn - c * tmp) / (0.5 * (4 / 3 - 0.1 * c ** 2 / 1.1))
    acc = tmp - 0.05 * acc_th * c / 1.1
    return np.stack([x + 0.02 * v, v + 0.02 * acc, th + 0.02 * w, w + 0.02 * acc_th], 1)


policy = Sequential([Input((4,)), Dense(32, activation="tanh"), Dense(2)])
optimizer = Adam(0.01)


def probs(s, weights):
    w1, b1, w2, b2 = weights
    logit = np.tanh(s @ w1 + b1) @ w2 + b2
    return 1 / (1 + np.exp(logit[:, 0] - logit[:, 1]))


@tf.function(reduce_retracing=True)
def update(obs, act, adv):
    with tf.GradientTape() as tape:
        nll = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=act, logits=policy(obs))
        loss = tf.reduce_mean(nll * adv)
    grads = tape.gradient(loss, policy.trainable_variables)
    optimizer.apply_gradients(zip(grads, policy.trainable_variables))
    return loss


lengths = []
for it in range(UPDATES):
    w = policy.get_weights()
    s = rng.uniform(-0.05, 0.05, (N_ENV, 4))
    alive = np.ones(N_ENV, bool)
    S, A, M = [], [], []
    for t in range(HORIZON):
        a = (rng.random(N_ENV) < probs(s, w)).astype(int)
        S.append(s); A.append(a); M.append(alive.copy())
        s = physics(s, a)
        alive &= (np.abs(s[:, 0]) < 2.4) & (np.abs(s[:, 2]) < 0.21)
        if not alive.any():
            break
    M = np.array(M, float)
    ret = np.zeros_like(M)
    g = np.zeros(N_ENV)
    for t in reversed(range(len(M))):
        g = M[t] * (1.0 + 0.98 * g)
        ret[t] = g
    keep = M.astype(bool)
    adv = ret[keep]
    adv = (adv - adv.mean()) / (adv.std() + 1e-6)
    loss = update(tf.constant(np.array(S)[keep], tf.float32), tf.constant(np.array(A)[keep], tf.int32),
                  tf.constant(adv, tf.float32))
    lengths.append(M.sum(0).mean())
    if it % 40 == 0:
        print("update", it, "loss %.4f" % float(loss), "mean length %.1f" % lengths[-1])
print("mean episode length: first ten %.1f, last ten %.1f" % (np.mean(lengths[:10]), np.mean(lengths[-10:])))
