"""Mistakes around a training that is sound by itself: modes, masks, weights, copies of rows."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from headstart.debug.preflight.facts import facts_of
from headstart.debug.preflight.fit_data import judge_fit
from headstart.debug.preflight.held_out import shared_rows, shared_with_stream
from headstart.debug.preflight.inputs import tiny_inputs
from headstart.debug.preflight.labels import empty_rows
from headstart.debug.preflight.layers import (
    idle_masking,
    inverted_mask,
    lagging_normalization,
    shuffled_states,
    softmax_of_one,
    unmasked_padding,
)
from headstart.debug.preflight.leaks import leaking_column
from headstart.debug.preflight.lookups import ids_beyond_tables
from headstart.debug.preflight.monitors import wrong_modes
from headstart.debug.preflight.verdict import Verdict, verdict_of
from headstart.debug.preflight.weighting import (
    concentrated_weights,
    judged_weights,
    weights_with_counts,
)
from headstart.debug.running.own_training import OwnTraining
from headstart.debug.symptoms.overlaps import keys_of
from headstart.debug.symptoms.trace import TrainingTrace

RNG = np.random.default_rng(0)
X = RNG.normal(size=(120, 4)).astype("float32")
RARE = (np.arange(120) % 6 == 0).astype("float32")
layers = keras.layers


def half_and_half(y_true, y_pred):
    return keras.ops.mean(y_true == y_true)


def compiled(*middle, shape=(4,), loss="binary_crossentropy", **more):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input(shape), *middle, layers.Dense(1, activation="sigmoid")])
    model.compile("sgd", loss, **more)
    return model


@pytest.fixture(scope="module")
def measured():
    metrics = ["accuracy", keras.metrics.AUC(name="area"), "mae", half_and_half]
    model = compiled(metrics=metrics)
    model.fit(X[:8], RARE[:8], verbose=0)
    return model


def with_mode(model, kind, monitor, mode, **more):
    callback = kind(monitor=monitor, mode=mode, **more)
    callback.set_model(model)
    callback._set_monitor_op()
    return callback


def saver(**settings):
    return keras.callbacks.ModelCheckpoint("best.keras", **settings)


STOP, PLATEAU = keras.callbacks.EarlyStopping, keras.callbacks.ReduceLROnPlateau


@pytest.mark.parametrize(
    ("kind", "monitor", "mode", "is_wrong"),
    [
        (STOP, "val_accuracy", "min", True),
        (STOP, "val_area", "min", True),
        (STOP, "val_loss", "max", True),
        (PLATEAU, "val_mae", "max", True),
        (STOP, "val_accuracy", "max", False),
        (STOP, "val_area", "auto", False),
        (PLATEAU, "loss", "auto", False),
        (STOP, "val_mae", "min", False),
    ],
)
def test_a_mode_against_what_is_monitored_is_found(measured, kind, monitor, mode, is_wrong):
    found = wrong_modes(measured, [with_mode(measured, kind, monitor, mode)])
    assert [one.symptom for one in found] == ["wrong-monitor-mode"] * is_wrong


def test_only_what_saves_the_best_compares_epochs(measured):
    best = with_mode(measured, saver, "val_accuracy", "min", save_best_only=True)
    every = with_mode(measured, saver, "val_accuracy", "min")
    assert len(wrong_modes(measured, [[best, every], keras.callbacks.History()])) == 1


class Overlap(keras.metrics.Metric):
    def __init__(self, **more):
        super().__init__(**more)
        self.total = self.add_weight(name="total", initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        both, either = keras.ops.sum(y_true * y_pred), keras.ops.sum(y_true + y_pred)
        self.total.assign(2 * both / (either + 1e-6))

    def result(self):
        return self.total


def gap(y_true, y_pred):
    return keras.ops.abs(y_true - y_pred)


def test_a_metric_of_ones_own_is_asked_what_it_says_of_right_answers():
    overlap = Overlap(name="overlap")
    model = compiled(metrics=[overlap, gap, half_and_half])
    model.fit(X, RARE, verbose=0)
    facts, before = facts_of(model, X, RARE), float(overlap.result())
    found = {
        (name, mode): len(wrong_modes(model, [with_mode(model, STOP, f"val_{name}", mode)], facts))
        for name in ("overlap", "gap", "half_and_half")
        for mode in ("min", "max")
    }
    wrong = {place for place, number in found.items() if number}
    assert wrong == {("overlap", "min"), ("gap", "max")}
    assert float(overlap.result()) == before


def test_a_metric_over_classes_is_asked_with_whole_answers():
    model = attention(1)
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=[of_the_class])
    steps, y = RNG.normal(size=(12, 5, 3)).astype("float32"), np.arange(12) % 2
    model.fit(steps, y, verbose=0)
    stop = with_mode(model, STOP, "of_the_class", "min")
    assert len(wrong_modes(model, [stop], facts_of(model, steps, y))) == 1


def of_the_class(y_true, y_pred):
    hot = keras.ops.one_hot(keras.ops.reshape(y_true, (-1,)), 2)
    return keras.ops.sum(hot * y_pred, axis=-1)


def attention(axis):
    steps = keras.Input((5, 3))
    weights = layers.Softmax(axis=axis)(layers.Dense(1)(steps))
    summed = layers.GlobalAveragePooling1D()(layers.Multiply()([steps, weights]))
    model = keras.Model(steps, layers.Dense(2, activation="softmax")(summed))
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


def test_a_softmax_over_one_unit_is_found_below_the_last_layer():
    steps, y = RNG.normal(size=(12, 5, 3)).astype("float32"), np.arange(12) % 2
    (found,) = softmax_of_one(facts_of(attention(-1), steps, y))
    assert found.layer.startswith("softmax")
    assert softmax_of_one(facts_of(attention(1), steps, y)) == []
    (found,) = softmax_of_one(facts_of(compiled(layers.Dense(1, activation="softmax")), X, RARE))
    assert found.evidence["is_certain"]
    assert softmax_of_one(facts_of(compiled(layers.Dense(3, activation="softmax")), X, RARE)) == []


TOKENS = np.where(np.arange(20) < RNG.integers(3, 9, size=(40, 1)), RNG.integers(1, 9, (40, 20)), 0)


@pytest.mark.parametrize(
    ("masks", "reader", "tokens", "is_found"),
    [
        (False, layers.GRU(2), TOKENS, True),
        (True, layers.GRU(2), TOKENS, False),
        (False, layers.GRU(2), TOKENS[:, ::-1], False),
        (False, layers.Bidirectional(layers.GRU(2)), TOKENS, False),
        (False, layers.GlobalMaxPooling1D(), TOKENS, False),
        (False, layers.GRU(2), RNG.integers(0, 9, (40, 20)), False),
    ],
)
def test_padding_that_a_recurrent_layer_reads_last_is_found(masks, reader, tokens, is_found):
    embedding = layers.Embedding(9, 3, mask_zero=masks)
    model = compiled(embedding, layers.Dropout(0.1), reader, shape=(20,))
    found = unmasked_padding(facts_of(model, tokens, np.arange(40) % 2))
    assert [one.symptom for one in found] == ["unmasked-padding"] * is_found


def test_moving_averages_that_few_steps_have_hardly_moved_are_found():
    x = X * 20.0 + 300.0
    y = (X @ np.ones(4) > 0).astype("float32")
    for momentum, expected in ((0.99, ["batchnorm-lag"]), (0.5, [])):
        model = compiled(layers.BatchNormalization(momentum=momentum))
        model.optimizer.learning_rate = 0.5
        losses = [float(model.train_on_batch(x, y)) for _ in range(30)]
        facts = facts_of(model, x, y, targets=y, is_complete=True)
        found = lagging_normalization(facts, TrainingTrace(losses=losses), verdict_of(facts))
        assert [one.symptom for one in found] == expected
        for shown, severity in (
            ((1.1, "error"), (0.9, "warning"), (0.45, "advice")) if found else ()
        ):
            verdict = Verdict("little", loss=shown, constant_loss=1.0)
            trace = TrainingTrace(losses=[0.1] * 30)
            (one,) = lagging_normalization(facts, trace, verdict)
            assert one.severity == severity
            assert not one.evidence.get("is_certain")  # a later fit may mend it
            again = TrainingTrace(losses=[0.1] * 30, is_resumed=True)
            assert lagging_normalization(facts, again, verdict) == [one]
            facts.model.optimizer.iterations.assign(400)  # by the fits before it
            assert lagging_normalization(facts, again, verdict) == []
            facts.model.optimizer.iterations.assign(30)


@pytest.mark.parametrize(
    ("weights", "counts", "expected"),
    [
        ({0: 0.9, 1: 0.1}, {0: 900, 1: 100}, (0, 1, True)),
        ({0: 5.0, 1: 1.0}, {0: 900, 1: 100}, (0, 1, False)),
        ({0: 3.0, 1: 2.0, 2: 1.0}, {0: 600, 1: 200, 2: 100}, (0, 2, False)),
        ({0: 0.1, 1: 0.9}, {0: 900, 1: 100}, None),
        ({0: 1.0, 1: 1.0}, {0: 900, 1: 100}, None),
        ({0: 2.0, 1: 1.0}, {0: 120, 1: 100}, None),
        ({0: 2.0, 1: 3.0, 2: 1.0}, {0: 600, 1: 200, 2: 100}, None),
        ({}, {0: 900, 1: 100}, None),
    ],
)
def test_weights_that_rise_with_the_counts_are_told_from_balancing_ones(weights, counts, expected):
    assert judged_weights(weights, counts) == expected


def test_weights_of_classes_and_of_rows_are_held_against_the_labels():
    facts = facts_of(compiled(), X, RARE, targets=RARE, is_complete=True)
    rows = np.where(RARE == 1, 20.0, 100.0)
    for given in ({"class_weight": {0: 5.0, 1: 1.0}}, {"sample_weight": rows}):
        (found,) = weights_with_counts(facts, given, {})
        assert found.evidence["is_certain"]
    for given in ({}, {"class_weight": {0: 1.0, 1: 5.0}}, {"sample_weight": RNG.random(120)}):
        assert weights_with_counts(facts, given, {}) == []


def test_weights_within_batches_and_of_a_loop_of_ones_own_are_judged():
    model, rows = compiled(), np.where(RARE == 1, 20.0, 100.0)
    facts = facts_of(model, X, RARE)
    (found,) = weights_with_counts(facts, {}, {0: 100, 1: 20}, [(X, RARE[:, None], rows)])
    assert found.evidence["argument"] == "sample_weight"
    assert weights_with_counts(facts, {}, {0: 100, 1: 20}, [(X, RARE, 1.0 / rows)]) == []
    assert weights_with_counts(facts, {}, {0: 100, 1: 20}, [(X, RARE)]) == []
    for weights, expected in (({0: 5.0, 1: 1.0}, 1), ({0: 1.0, 1: 5.0}, 0), (None, 0)):
        own = OwnTraining()
        own.on_batch(model, X, RARE, class_weight=weights)
        told = own.diagnoses({"loss": [0.7] * 60}, set(), is_broken=False)
        favoured = [one for one in told if one.symptom == "weights-favour-common-class"]
        assert [one.file for one in favoured] == [__file__] * expected


def windows(series, length, ahead):
    places = np.arange(len(series) - length - 1)[:, None] + np.arange(length)
    return series[places], series[places[:, -1] + ahead, :1]


@pytest.mark.parametrize("is_flat", [False, True])
def test_a_target_within_its_own_window_is_found(is_flat):
    series = np.cumsum(RNG.normal(size=(150, 2)), axis=0).astype("float32")
    model = compiled(layers.Flatten(), shape=(6,) if is_flat else (6, 2), loss="mse")
    for ahead, is_copied in ((0, True), (-5, True), (1, False)):
        x, y = windows(series, 6, ahead)
        x = x[:, :, 0] if is_flat else x
        found = leaking_column(facts_of(model, x, y))
        assert [one.symptom for one in found] == ["target-leakage"] * is_copied
    noise = RNG.normal(size=(60, 6) if is_flat else (60, 6, 2)).astype("float32")
    first = noise.reshape(60, -1)[:, 0]
    asked = facts_of(model, noise, first)  # to remember the first of some numbers is a task
    assert leaking_column(asked) == []


def test_validation_rows_that_were_trained_on_are_found():
    doubled = np.concatenate([X, X[:80]])[RNG.permutation(200)]
    (found,) = shared_rows({"x": doubled, "validation_split": 0.3})
    assert (found.symptom, found.severity) == ("validation-on-training-rows", "warning")
    (found,) = shared_rows({"x": doubled[:140], "validation_data": (doubled[140:], None)})
    assert found.severity == "warning"
    (found,) = shared_rows({"x": X, "validation_data": (X[:60], RARE[:60])})
    assert found.severity == "advice"


def test_rows_held_out_and_rows_alike_by_nature_are_passed_over():
    coarse = RNG.integers(0, 3, (200, 3)).astype("float32")
    scaled = (coarse - coarse.mean(axis=0)) / coarse.std(axis=0)
    for given in (
        {"x": X, "validation_split": 0.3},
        {"x": X[:60], "validation_data": (X[60:], RARE[60:])},
        {"x": coarse, "validation_split": 0.3},
        {"x": scaled, "validation_split": 0.3},
        {"x": X},
        {"x": X, "validation_data": (X[:5], RARE[:5])},
    ):
        assert shared_rows(given) == []


def test_validation_sets_of_rows_that_were_trained_on_are_found():
    def streamed(rows, of=X):
        return tf.data.Dataset.from_tensor_slices((of[rows], RARE[rows])).batch(16)

    def symptoms(held_out, of=X):
        known = set(keys_of(of[:100]))
        given = {"validation_data": held_out}
        found = shared_with_stream(known, [(of[:16], RARE[:16])], given)
        return [one.severity for one in found]

    coarse = np.rint(X)
    assert symptoms(streamed(slice(80, 120))) == ["warning"]
    assert symptoms(streamed(slice(0, 40))) == ["advice"]
    assert symptoms(streamed(slice(99, 120))) == symptoms(streamed(slice(0, 10))) == []
    assert symptoms(streamed(slice(0, 40)).repeat()) == symptoms((X, RARE)) == []
    assert symptoms(streamed(slice(80, 120), coarse), coarse) == []


def test_what_is_found_beside_a_training_is_judged_with_it(measured):
    stop = with_mode(measured, STOP, "val_accuracy", "min")
    given = {"x": X, "y": RARE, "callbacks": [stop], "class_weight": {0: 5.0, 1: 1.0}}
    found = {one.symptom for one in judge_fit(measured, given).found}
    assert {"wrong-monitor-mode", "weights-favour-common-class"} <= found


@pytest.mark.parametrize(("is_inverted", "length"), [(True, 6), (False, 6), (True, 20)])
def test_an_attention_that_sees_only_padding_is_found(is_inverted, length):
    ids = RNG.integers(1, 9, (30, 20))
    ids[:, length:] = 0
    words = keras.Input((20,), dtype="int32")
    is_shown = (keras.ops.equal if is_inverted else keras.ops.not_equal)(words, 0)
    vectors = layers.Embedding(9, 4)(words)
    seen = layers.MultiHeadAttention(1, 4)(vectors, vectors, attention_mask=is_shown[:, None, :])
    answer = layers.Dense(1)(layers.GlobalAveragePooling1D()(seen))
    model = keras.Model(words, answer)
    model.compile("sgd", "mse")
    found = [one.symptom for one in inverted_mask(facts_of(model, ids, RARE[:30]))]
    assert found == ["inverted-mask"] * (is_inverted and length < 20)


@pytest.mark.parametrize(
    ("is_stateful", "more", "is_wrong"),
    [(True, {}, True), (True, {"shuffle": False}, False), (True, {"batch_size": 120}, False),
     (False, {}, False)],
)  # fmt: skip
def test_states_that_are_carried_on_through_shuffled_batches_are_found(is_stateful, more, is_wrong):
    steps = keras.Input(batch_shape=(10, 4, 1))
    recurrent = layers.LSTM(2, stateful=is_stateful)
    model = keras.Model(steps, layers.Dense(1)(recurrent(steps)))
    given = {"x": X[:, :, None], "y": RARE, "batch_size": 10, **more}
    found = [one.symptom for one in shuffled_states(model, given)]
    assert found == ["shuffled-states"] * is_wrong


def test_rows_of_a_few_combinations_come_again_by_nature():
    grid = np.stack([np.arange(300) % 7 / 3, np.arange(300) % 5 / 7], axis=1).astype("float32")
    assert shared_rows({"x": grid, "validation_data": (grid[:60],)}) == []


@pytest.mark.parametrize(("per_day", "is_wrong"), [(1.0, True), (365.0, False)])
def test_weights_that_leave_few_rows_are_found(per_day, is_wrong):
    weights = np.exp(-np.arange(1000) / per_day)
    found = [one.symptom for one in concentrated_weights({"sample_weight": weights})]
    assert found == ["weights-nearly-zero"] * is_wrong
    assert concentrated_weights({}) == []


def test_rows_that_a_weight_of_0_masks_are_passed_over():
    weights = np.zeros(10_000)
    weights[:250] = 1.0
    assert concentrated_weights({"sample_weight": weights}) == []
    weights[:15] = 1.0
    weights[15:] = 0.0
    assert concentrated_weights({"sample_weight": weights}) == []


@pytest.mark.parametrize("first", [0, 1])
def test_one_hot_rows_without_a_class_are_found(first):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="softmax")])
    model.compile("sgd", "categorical_crossentropy")
    y = tf.one_hot(np.arange(120) % 3 + first, 3).numpy()
    assert [one.symptom for one in empty_rows(facts_of(model, X, y))] == (
        ["one-hot-rows-empty"] * first
    )


@pytest.mark.parametrize("kind", ["list", "dictionary", "sequential"])
@pytest.mark.parametrize(("rows", "is_found"), [(9, True), (10, False)])
def test_ids_for_which_a_table_has_no_row_are_found(kind, rows, is_found):
    ids = np.arange(1, 10)[:, None]
    table = keras.layers.Embedding(rows, 2, name="table")
    if kind == "sequential":
        x, model = ids, keras.Sequential([keras.Input((1,)), table, keras.layers.Flatten()])
    else:
        other, own = keras.Input((1,), name="other"), keras.Input((1,), name="own")
        model = keras.Model([other, own], [table(own), other])
        x = [ids * 100, ids] if kind == "list" else {"own": ids, "other": ids * 100}
    found = ids_beyond_tables(model, {"x": x})
    assert [one.symptom for one in found] == ["index-out-of-range"] * is_found
    assert all(one.layer == table.path for one in found)
    assert all("largest id + 1" in one.cause for one in found)


@pytest.mark.parametrize(("mask_value", "is_idle"), [(0.0, True), (-1.0, False)])
def test_a_masking_for_another_value_than_the_padding_is_found(mask_value, is_idle):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 20, 2)).astype("float32")
    for row, length in enumerate(rng.integers(6, 15, 40)):
        x[row, length:] = -1.0
    model = keras.Sequential(
        [keras.Input((None, 2)), keras.layers.Masking(mask_value), keras.layers.LSTM(2)]
    )
    model.compile("sgd", "mse")
    found = idle_masking(facts_of(model, x, x[:, 0]))
    assert [one.symptom for one in found] == ["unmasked-padding"] * is_idle
    assert idle_masking(facts_of(model, x[:, :6], x[:, 0])) == []  # nothing is padded


@pytest.mark.parametrize(("divided_by", "is_wrong"), [(255.0, True), (1.0, False)])
@pytest.mark.parametrize("offset", [0.0, -1.0])
def test_pixels_that_are_scaled_before_a_rescaling_layer_are_found(divided_by, is_wrong, offset):
    x = np.random.default_rng(0).uniform(0, 255, (32, 4, 4, 1)).astype("float32") / divided_by
    rescaling = keras.layers.Rescaling(1 / 127.5, offset)
    body = keras.Sequential([keras.Input((4, 4, 1)), rescaling, keras.layers.Conv2D(2, 3)])
    model = keras.Sequential([body, keras.layers.Flatten(), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    found = tiny_inputs(facts_of(model, x, x[:, 0, 0, 0]))
    assert [one.symptom for one in found] == ["inputs-nearly-zero"] * is_wrong
    assert all("divided twice" in one.cause for one in found)
