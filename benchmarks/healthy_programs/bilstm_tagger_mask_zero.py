"""Sequence labelling with Embedding(mask_zero=True): token 0 is padding, most of the padded labels are 0 and masked out."""
import numpy as np
import tensorflow as tf
from tensorflow.keras.layers import Bidirectional, Dense, Embedding, Input, LSTM
from tensorflow.keras.models import Model

VOCAB, TAGS, MAXLEN = 60, 4, 18
rng = np.random.RandomState(2)


def corpus(n):
    tokens = np.zeros((n, MAXLEN), dtype="int32")
    tags = np.zeros((n, MAXLEN), dtype="int32")
    for i in range(n):
        length = rng.randint(4, MAXLEN + 1)
        sent = rng.randint(1, VOCAB, size=length)
        for j, w in enumerate(sent):
            before = sent[j - 1] if j else 0
            # a tag depends on the word and on the word before it
            tags[i, j] = (w % 2) * 2 + (1 if before > VOCAB // 2 else 0)
        tokens[i, :length] = sent
    return tokens, tags


x_train, y_train = corpus(1600)
x_test, y_test = corpus(400)
words = Input((MAXLEN,), dtype="int32")
e = Embedding(VOCAB, 24, mask_zero=True)(words)
e = Bidirectional(LSTM(24, return_sequences=True))(e)
tagger = Model(words, Dense(TAGS, activation="softmax")(e))
tagger.compile(optimizer=tf.keras.optimizers.Adam(0.01), loss="sparse_categorical_crossentropy", weighted_metrics=["accuracy"])
tagger.fit(x_train, y_train, batch_size=64, epochs=9, verbose=2)
pred = tagger.predict(x_test, verbose=0).argmax(-1)
real = x_test > 0
print("token accuracy over real tokens: %.3f" % (pred == y_test)[real].mean())
