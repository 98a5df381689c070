"""DQN on a small grid with target network and replay; the TD loss goes up as values spread back from the goal, the return is what counts."""
import random
from collections import deque
import numpy as np
import tensorflow as tf

SIZE, GAMMA = 5, 0.95
MOVES = [(0, 1), (0, -1), (1, 0), (-1, 0)]
WALLS = {(1, 1), (2, 1), (3, 3), (1, 3)}


class Grid:
    def reset(self):
        self.pos, self.t = (0, 0), 0
        return self.obs()

    def obs(self):
        v = np.zeros(SIZE * SIZE, "float32")
        v[self.pos[0] * SIZE + self.pos[1]] = 1
        return v

    def step(self, a):
        self.t += 1
        nxt = (self.pos[0] + MOVES[a][0], self.pos[1] + MOVES[a][1])
        if 0 <= nxt[0] < SIZE and 0 <= nxt[1] < SIZE and nxt not in WALLS:
            self.pos = nxt
        win = self.pos == (SIZE - 1, SIZE - 1)
        return self.obs(), 10.0 if win else -0.1, win, win or self.t >= 40


def make_net():
    return tf.keras.Sequential([tf.keras.layers.Input((SIZE * SIZE,)),
                                tf.keras.layers.Dense(64, activation="relu"), tf.keras.layers.Dense(4)])


class Agent:
    def __init__(self):
        self.q, self.target = make_net(), make_net()
        self.target.set_weights(self.q.get_weights())
        self.opt = tf.keras.optimizers.Adam(1e-3)
        self.huber = tf.keras.losses.Huber()
        self.memory = deque(maxlen=5000)

    @tf.function(reduce_retracing=True)
    def values(self, s):
        return self.q(s)

    @tf.function
    def learn(self, s, a, r, s2, done):
        best = tf.reduce_max(self.target(s2), axis=1)
        y = r + GAMMA * (1.0 - done) * best
        with tf.GradientTape() as tape:
            pred = tf.reduce_sum(self.q(s) * tf.one_hot(a, 4), axis=1)
            loss = self.huber(y, pred)
        g = tape.gradient(loss, self.q.trainable_variables)
        self.opt.apply_gradients(zip(g, self.q.trainable_variables))
        return loss

    def act(self, s, eps):
        if random.random() < eps:
            return random.randrange(4)
        return int(np.argmax(self.values(tf.constant(s[None]))[0]))

    def replay(self, n=64):
        s, a, r, s2, d = map(np.array, zip(*random.sample(self.memory, n)))
        return float(self.learn(tf.constant(s), tf.constant(a, tf.int32), tf.constant(r, tf.float32),
                                tf.constant(s2), tf.constant(d, tf.float32)))


if __name__ == "__main__":
    random.seed(1)
    tf.random.set_seed(1)
    env, agent, step, losses = Grid(), Agent(), 0, []
    while step < 3500:
        s, over = env.reset(), False
        while not over:
            a = agent.act(s, max(0.05, 1.0 - step / 2000))
            s2, r, win, over = env.step(a)
            agent.memory.append((s, a, r, s2, win))
            s, step = s2, step + 1
            if len(agent.memory) >= 200:
                losses.append(agent.replay())
            if step % 100 == 0:
                agent.target.set_weights(agent.q.get_weights())
    print("td loss by tenth:", [round(float(np.mean(c)), 4) for c in np.array_split(losses, 10)])
    s, over, total = env.reset(), False, 0.0
    while not over:
        s, r, win, over = env.step(agent.act(s, 0.0))
        total += r
    print("greedy return", round(total, 2), "steps", env.t, "reached goal:", win)
