"""Skip-gram word2vec with NCE loss over sampled negatives; loss is noisy and stays well off zero."""
import numpy as np
import tensorflow as tf

np.random.seed(0)
tf.random.set_seed(0)
GROUPS, PER = 8, 25
VOCAB, DIM, NEG = GROUPS * PER, 24, 16
# sentences draw from one group of words each, so words of a group should come close
sentences = [np.random.randint(0, PER, 10) + PER * np.random.randint(GROUPS) for _ in range(3000)]
pairs = np.array([(s[i], s[j]) for s in sentences for i in range(10) for j in (i - 1, i + 1) if 0 <= j < 10], "int64")
np.random.shuffle(pairs)

embeddings = tf.Variable(tf.random.uniform([VOCAB, DIM], -1.0, 1.0))
nce_w = tf.Variable(tf.random.truncated_normal([VOCAB, DIM], stddev=1.0 / DIM ** 0.5))
nce_b = tf.Variable(tf.zeros([VOCAB]))
optimizer = tf.optimizers.Adam(5e-3)


@tf.function
def run_optimization(centre, context):
    with tf.GradientTape() as g:
        embed = tf.nn.embedding_lookup(embeddings, centre)
        loss = tf.reduce_mean(tf.nn.nce_loss(weights=nce_w, biases=nce_b, labels=context[:, None], inputs=embed,
                                             num_sampled=NEG, num_classes=VOCAB))
    variables = [embeddings, nce_w, nce_b]
    optimizer.apply_gradients(zip(g.gradient(loss, variables), variables))
    return loss


avg = 0.0
for step in range(2000):
    batch = pairs[np.random.randint(0, len(pairs), 256)]
    avg += float(run_optimization(tf.constant(batch[:, 0]), tf.constant(batch[:, 1])))
    if (step + 1) % 400 == 0:
        print("step %d average loss %.3f" % (step + 1, avg / 400))
        avg = 0.0
e = tf.math.l2_normalize(embeddings, 1).numpy()
sim = e @ e.T - 2 * np.eye(VOCAB)
print("nearest neighbour of the same group: %.3f, chance %.3f" % (np.mean(sim.argmax(1) // PER == np.arange(VOCAB) // PER), 1 / GROUPS))
