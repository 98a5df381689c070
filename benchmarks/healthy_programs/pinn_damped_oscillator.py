"""Physics-informed net for u'' + 0.4 u' + 4 u = 0 with u(0)=1, u'(0)=0: no data, the loss is residual of the equation by second derivatives."""
import numpy as np
import tensorflow as tf

tf.keras.utils.set_random_seed(1)
DAMP, STIFF, T_END = 0.4, 4.0, 5.0
net = tf.keras.Sequential([
    tf.keras.layers.Input((1,)),
    tf.keras.layers.Dense(32, activation="tanh"),
    tf.keras.layers.Dense(32, activation="tanh"),
    tf.keras.layers.Dense(1),
])
t_col = tf.constant(np.linspace(0, T_END, 80, dtype="float32")[:, None])
t0 = tf.zeros((1, 1))
schedule = tf.keras.optimizers.schedules.ExponentialDecay(5e-3, 1000, 0.6)
opt = tf.keras.optimizers.Adam(schedule)


def u_and_derivatives(t):
    with tf.GradientTape() as outer:
        outer.watch(t)
        with tf.GradientTape() as inner:
            inner.watch(t)
            u = net(t / T_END * 2 - 1)
        du = inner.gradient(u, t)
    return u, du, outer.gradient(du, t)


@tf.function
def train():
    with tf.GradientTape() as tape:
        u, du, ddu = u_and_derivatives(t_col)
        residual = tf.reduce_mean((ddu + DAMP * du + STIFF * u) ** 2)
        u0, du0, _ = u_and_derivatives(t0)
        start = tf.reduce_mean((u0 - 1.0) ** 2 + du0 ** 2)
        loss = residual + 20.0 * start
    grads = tape.gradient(loss, net.trainable_variables)
    opt.apply_gradients(zip(grads, net.trainable_variables))
    return loss


for i in range(4000):
    loss = train()
    if i % 800 == 0:
        print(i, "loss %.5f" % float(loss))
t = t_col.numpy()[:, 0]
w = np.sqrt(STIFF - DAMP ** 2 / 4)
exact = np.exp(-DAMP * t / 2) * (np.cos(w * t) + DAMP / (2 * w) * np.sin(w * t))
approx = u_and_derivatives(t_col)[0].numpy()[:, 0]
print("max error %.4f, max |u| %.2f" % (np.abs(approx - exact).max(), np.abs(exact).max()))
