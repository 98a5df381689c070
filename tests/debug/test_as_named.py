"""What names in a program's text show of its losses and targets."""

import ast
import textwrap

import keras
import numpy as np
import pytest

from headstart.debug.preflight.facts import facts_of
from headstart.debug.preflight.layers import inverted_mask
from headstart.debug.symptoms.as_named import misread, refitted


def found(text):
    tree = ast.parse(textwrap.dedent(text))
    return [(one.symptom, one.line) for _, one in misread("program.py", tree)]


@pytest.mark.parametrize(
    "text",
    [
        "loss = tf.reduce_mean(log_prob * advantage)",
        "loss = tf.reduce_mean(advantages * logp)\ngrads = tape.gradient(loss, weights)",
        "policy_loss = keras.ops.sum(log_probs * returns)",
        "chosen = tf.gather(log_probs, a, batch_dims=1)\nloss = tf.reduce_mean(chosen * G)"
        " - 0.01 * entropy",
    ],
)
def test_a_policy_that_is_made_worse_is_found(text):
    assert [symptom for symptom, _ in found(text)] == ["wrong-sign"]


@pytest.mark.parametrize(
    "text",
    [
        "loss = -tf.reduce_mean(log_prob * advantage)",
        "loss = tf.reduce_mean(-log_prob * advantage)",
        "loss = tf.reduce_mean(log_prob * advantage)\ngrads = tape.gradient(-loss, weights)",
        "loss = tf.reduce_mean(log_prob * advantage)\ntotal = 0.5 * value_loss - loss",
        "log_prob = -tf.nn.sparse_softmax_cross_entropy_with_logits(a, logits)\n"
        "loss = tf.reduce_mean(log_prob * advantage)",
        "neg_log_p = cross_entropy(a, logits)\nloss = tf.reduce_mean(neg_log_p * advantage)",
        "objective = tf.reduce_mean(log_prob * advantage)",
        "loss = tf.reduce_mean(log_prob * advantage)\nfor v, g in pairs:\n    v.assign_add(g)",
        "loss = tf.reduce_mean(weights * errors)",
    ],
)
def test_a_policy_that_is_made_better_is_passed_over(text):
    assert found(text) == []


@pytest.mark.parametrize(
    ("text", "is_wrong"),
    [
        ("""
         def triplet(a, p, n):
             pos_dist = tf.reduce_sum(tf.square(a - p), axis=1)
             neg_dist = tf.reduce_sum(tf.square(a - n), axis=1)
             return tf.reduce_mean(tf.maximum(neg_dist - pos_dist + 0.5, 0.0))
         """, True),
        ("""
         def triplet(a, p, n):
             d_pos, d_neg = tf.norm(a - p, axis=1), tf.norm(a - n, axis=1)
             dist_pos = tf.norm(a - p, axis=1)
             dist_neg = tf.norm(a - n, axis=1)
             return tf.nn.relu(MARGIN + dist_neg - dist_pos)
         """, True),
        ("""
         def triplet(a, p, n):
             pos_dist = tf.reduce_sum(tf.square(a - p), axis=1)
             neg_dist = tf.reduce_sum(tf.square(a - n), axis=1)
             return tf.reduce_mean(tf.maximum(pos_dist - neg_dist + 0.5, 0.0))
         """, False),
        ("""
         def triplet(a, p, n):
             pos = tf.reduce_sum(a * p, axis=1)
             neg = tf.reduce_sum(a * n, axis=1)
             return tf.reduce_mean(tf.maximum(neg - pos + 0.5, 0.0))
         """, False),
        ("""
         def ranking(pos_score, neg_score):
             return tf.reduce_mean(tf.maximum(neg_score - pos_score + 1.0, 0.0))
         """, False),
        ("""
         def cosine(a, p, n):
             pos_sim = cosine_similarity(a, p) / tf.norm(p)
             neg_sim = cosine_similarity(a, n) / tf.norm(n)
             return tf.maximum(0.0, neg_sim - pos_sim + 0.2)
         """, False),
    ],
)  # fmt: skip
def test_a_hinge_of_swapped_distances_is_found(text, is_wrong):
    assert [symptom for symptom, _ in found(text)] == ["wrong-sign"] * is_wrong


MODEL = """
age_out = layers.Dense(1, name="age")(h)
glasses_out = layers.Dense(1, activation="sigmoid", name="glasses")(h)
model = Model(inp, [glasses_out, age_out])
"""


@pytest.mark.parametrize(
    ("call", "is_wrong"),
    [
        ("model.fit(x, [age[:90], glasses[:90]])", True),
        ("model.fit(x, y=[y_age, y_glasses], epochs=3)", True),
        ("model.evaluate(x_test, [age_test, glasses_test])", True),
        ("model.fit(x, [glasses, age])", False),
        ("model.fit(x, [y_train[0], y_train[1]])", False),
        ("model.fit(x, {'age': age, 'glasses': glasses})", False),
        ("model.fit([age, glasses], y)", False),
    ],
)
def test_targets_in_another_order_than_the_outputs_are_found(call, is_wrong):
    assert found(MODEL + call) == [("targets-in-another-order", 5)] * is_wrong


@pytest.mark.parametrize(
    ("text", "is_wrong"),
    [
        ("X_train = scaler.fit_transform(X_train)\nX_test = scaler.fit_transform(X_test)", True),
        ("a = MinMaxScaler().fit_transform(x_tr)\nb = MinMaxScaler().fit_transform(x_te)", True),
        ("sc = Scaler(); x = sc.fit_transform(x_train)\ny = sc.fit_transform(x_test)", True),
        ("x = self.encoder.fit_transform(train[cols])\ny = self.encoder.fit_transform(val[cols])",
         True),
        ("X_train = scaler.fit_transform(X_train)\nX_test = scaler.transform(X_test)", False),
        ("a = scaler.fit_transform(X_train)\nb = y_scaler.fit_transform(y_test)", False),
        ("x = scaler.fit_transform(contest)\ny = scaler.fit_transform(latest)", False),
        ("x = tsne.fit_transform(train)\ny = tsne.fit_transform(test)", False),
        ("for col in cols:\n    df[col] = encoder.fit_transform(df[col])", False),
    ],
)  # fmt: skip
def test_what_is_fitted_once_more_to_test_rows_is_found(text, is_wrong):
    told = [one for _, one in refitted("program.py", ast.parse(text))]
    assert [(one.symptom, one.line) for one in told] == [("fitted-to-test-rows", 2)] * is_wrong


def attention(mask):
    query = keras.Input((4, 6))
    told = {"use_causal_mask": True} if mask is None else {"attention_mask": mask[None]}
    layer = keras.layers.MultiHeadAttention(1, 3)
    model = keras.Model(query, layer(query, query, **told))
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(size=(3, 4, 6)).astype("float32")
    return facts_of(model, x, x)


@pytest.mark.parametrize(
    ("mask", "is_wrong"),
    [
        (np.triu(np.ones((4, 4)), 1), True),
        (np.tril(np.ones((4, 4))), False),
        (np.triu(np.ones((4, 4))), False),  # read backwards
        (np.ones((4, 4)), False),
        (None, False),
    ],
)
def test_attention_to_the_future_alone_is_found(mask, is_wrong):
    assert [one.symptom for one in inverted_mask(attention(mask))] == ["inverted-mask"] * is_wrong
