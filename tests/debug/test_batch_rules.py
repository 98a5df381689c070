"""What a training was fed: the same batch, one class each, too few rows, spent iterators."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from headstart.debug.callsites import CallSite
from headstart.debug.preflight.facts import facts_of
from headstart.debug.preflight.inputs import exchanged, too_few_rows
from headstart.debug.preflight.leaks import leaking_column
from headstart.debug.preflight.outputs import one_class_seen
from headstart.debug.symptoms.batches import Batches, fed_to_fit, spent_input
from headstart.debug.symptoms.metric_resets import MetricResets
from headstart.debug.symptoms.trace import TrainingTrace

X = np.random.default_rng(0).normal(size=(200, 4)).astype("float32")
CLASSES = np.arange(200) % 4


def fed(batches):
    seen = Batches()
    for x, y in batches:
        seen.on_step(x, y)
    return [found.symptom for found in seen.diagnoses()]


def test_a_slice_that_is_taken_again_at_every_step_is_found():
    assert fed((X[:32], CLASSES[:32]) for _ in range(40)) == ["same-batch"]


def test_one_batch_by_intention_and_one_pass_after_the_other_are_passed_over():
    every = X.copy()
    assert fed((every, CLASSES) for _ in range(40)) == []
    assert fed((X.copy(), CLASSES) for _ in range(40)) == []
    assert fed((X[i % 5 * 40 :][:40], CLASSES[:40]) for i in range(40)) == []
    assert fed((np.ones((8, 4)), CLASSES[:8]) for _ in range(40)) == []


def test_a_large_slice_is_all_that_is_meant_to_be_trained_on():
    many = np.repeat(X, 10, axis=0)
    assert fed((many[:800], None) for _ in range(40)) == []
    assert fed((many[:100], None) for _ in range(40)) == ["same-batch"]
    assert fed((np.repeat(many, 5, axis=0)[:800], None) for _ in range(40)) == ["same-batch"]


def test_a_table_that_stays_is_no_batch_where_something_else_changes():
    ids = np.arange(80).reshape(40, 2)
    for last in (ids, ids * 0):
        expected = ["same-batch"] * (not last.any())
        beside = Batches()
        for one in last:
            beside.on_step(X[:32], None, None, [one, np.zeros(2)])
        assert [found.symptom for found in beside.same_batch()] == expected
        assert fed(((X[:32], one), None) for one in last) == expected
        assert fed(({"table": X[:32], "ids": tf.constant(one)}, None) for one in last) == expected


class Rows(keras.utils.PyDataset):
    def __len__(self):
        return 20

    def __getitem__(self, index):
        return X[:32], CLASSES[:32]


def test_a_data_set_that_gives_the_same_batch_for_every_index_is_found():
    seen = Batches()
    for index in range(40):
        seen.on_step(tf.constant(Rows()[index][0]))
    assert fed_to_fit(seen, {}) == []
    assert [found.symptom for found in fed_to_fit(seen, {"x": Rows()})] == ["same-batch"]


def stuck(x, y, size):
    data = {"train": (x, y)}
    while True:
        i = 0
        yield data["train"][0][i : i + size], data["train"][1][i : i + size]


def stuck_on_global(size):
    while True:
        yield X[:size], CLASSES[:size]


@pytest.mark.parametrize(
    ("source", "line", "is_left_out"),
    [
        (stuck(X, CLASSES, 32), 4, True),
        (stuck_on_global(32), 2, True),
        (stuck(X[:32], CLASSES[:32], 32), 4, False),  # all that it has, on purpose
        (stuck(X[:40], CLASSES[:40], 32), 4, False),
    ],
)
def test_a_generator_that_begins_again_at_each_step_is_found(source, line, is_left_out):
    seen = Batches()
    for _ in range(40):
        x, y = next(source)
        seen.on_step(tf.constant(x), tf.constant(y))
    found = [(one.symptom, one.line) for one in fed_to_fit(seen, {"x": source})]
    wanted = source.gi_code.co_firstlineno + line
    assert found == [("same-batch", wanted)] * is_left_out


def in_batches(labels, size=16):
    return [(X[i : i + size] + i, labels[i : i + size]) for i in range(0, 200 - size, size)] * 2


def near_shuffled(labels, reach, seed=0):
    order = np.argsort(np.arange(len(labels)) + np.random.default_rng(seed).uniform(0, reach, 200))
    return labels[order]


@pytest.mark.parametrize(
    ("labels", "is_sorted"),
    [
        (np.sort(CLASSES), True),
        (near_shuffled(np.sort(CLASSES), 10), True),
        (np.eye(4)[np.sort(CLASSES)], True),
        (np.sort(CLASSES) // 2, True),
        (CLASSES, False),
        (near_shuffled(np.sort(CLASSES), 400), False),
        (np.arange(200) // 16 % 2, False),  # real and made-up rows in turn
        (np.sort(X[:, 0]), False),
        ((np.arange(200) > 190).astype(int), False),
    ],
)
def test_batches_of_one_class_each_are_told_from_mixed_ones(labels, is_sorted):
    assert fed(in_batches(labels)) == ["not-shuffled"] * is_sorted


def test_a_spent_iterator_is_told_with_its_line(tmp_path):
    file = tmp_path / "train.py"
    file.write_text(
        "pairs = zip(a, b)\nfor epoch in range(3):\n    for x, y in pairs:\n        f(x)\n"
    )
    (found,) = spent_input([CallSite(str(file), 1)])
    assert (found.symptom, found.line) == ("input-spent", 1)


def trace_of(epoch_starts, num_steps):
    return TrainingTrace(
        losses=[1.0] * num_steps,
        epochs=[{"loss": 1.0}] * len(epoch_starts),
        epoch_starts=epoch_starts,
        has_finished=True,
    )


ROWS = tf.data.Dataset.from_tensor_slices((X, CLASSES)).batch(2)


@pytest.mark.parametrize(
    ("given", "trace", "expected"),
    [
        ({"x": iter([]), "steps_per_epoch": 20, "epochs": 10}, trace_of([0, 20], 20),
         [("input-spent", "error")]),
        ({"x": ROWS.repeat(), "steps_per_epoch": 1, "epochs": 30}, trace_of(list(range(30)), 30),
         [("too-few-steps", "warning")]),
        ({"x": X, "batch_size": 2, "steps_per_epoch": 5, "epochs": 2}, trace_of([0, 5], 10),
         [("too-few-steps", "warning")]),
        ({"x": ROWS.repeat(), "steps_per_epoch": 50, "epochs": 9}, trace_of([0, 50], 100), []),
        ({"x": ROWS, "epochs": 3}, trace_of([0, 100, 200], 300), []),
        ({"x": iter([]), "steps_per_epoch": 5, "epochs": 9}, trace_of([0, 5, 10], 15), []),
    ],
)  # fmt: skip
def test_steps_that_leave_most_rows_out_are_found(given, trace, expected):
    assert [(one.symptom, one.severity) for one in too_few_rows(given, trace)] == expected


def test_epochs_given_for_the_batch_size_are_found():
    short = trace_of([0], 1)
    assert exchanged({"x": X, "batch_size": 100, "epochs": 2}, short)
    assert exchanged({"x": X, "batch_size": 200, "epochs": 100}, trace_of([0], 100)) == []
    assert exchanged({"x": X, "batch_size": 32, "epochs": 1}, trace_of([0], 7)) == []


def facts(x, y, loss):
    model = keras.Sequential([keras.Input((x.shape[1],)), keras.layers.Dense(1)])
    model.compile(loss=loss)
    return facts_of(model, x, y, targets=y, is_complete=True)


BITS = (X[:, 0] > 0).astype("float32")
LINEAR = X @ np.float32([1, 2, 3, 4])


@pytest.mark.parametrize(
    ("column", "y", "loss", "is_leak"),
    [
        (BITS, BITS, "binary_crossentropy", True),
        (1 - 2 * BITS + X[:, 1] / 100, BITS, "binary_crossentropy", True),
        (7 * CLASSES, CLASSES, "sparse_categorical_crossentropy", True),
        (3 * LINEAR - 1, LINEAR, "mse", True),
        (X[:, 0], BITS, "binary_crossentropy", False),  # a threshold is what is to be learnt
        (BITS + X[:, 1], BITS, "binary_crossentropy", False),
        (LINEAR + X[:, 0], LINEAR, "mse", False),
    ],
)
def test_a_column_that_gives_the_target_away_is_found(column, y, loss, is_leak):
    x = np.column_stack([X, column]).astype("float32")
    found = leaking_column(facts(x, y, loss))
    assert [one.evidence["column"] for one in found] == [4] * is_leak


def test_a_copy_of_the_target_is_found_beside_columns_that_come_near():
    target = (X @ np.float32([1, 2, 3, 4])) * 9
    near = [target + 0.4 * X[:, 0] + 5, target, 3 * target + X[:, 1]]
    (found,) = leaking_column(facts(np.column_stack(near), target, "mse"))
    assert found.evidence["column"] == 1
    assert "Column 1" in found.cause
    steps = np.repeat(np.random.default_rng(1).normal(size=30), 40)  # mostly stands still
    windows = np.stack([steps[i : i + 4] for i in range(800)])
    assert leaking_column(facts(windows, steps[4:804], "mse")) == []


def test_a_made_up_example_with_one_column_that_matters_is_no_leak():
    assert leaking_column(facts(X, 3 * X[:, 0] - 1, "mse")) == []


def test_neighbours_in_a_series_and_well_parted_groups_are_no_leak():
    wave = np.sin(np.arange(260) * 0.05).astype("float32")
    windows = np.stack([wave[i : i + 6] for i in range(200)])
    assert leaking_column(facts(windows, wave[6:206], "mse")) == []
    groups = X + 40 * CLASSES[:, None]
    assert leaking_column(facts(groups, CLASSES, "sparse_categorical_crossentropy")) == []


def test_labels_of_a_stream_that_are_all_one_class_are_found():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, activation="sigmoid")])
    model.compile(loss="binary_crossentropy")
    stream = facts_of(model, X, BITS * 0)
    trace = TrainingTrace(losses=[0.1], epochs=[{"loss": 0.1}], label_counts={0: 200})
    assert [one.symptom for one in one_class_seen(stream, trace)] == ["one-class-only"]
    trace.label_counts = {0: 199, 1: 1}
    assert one_class_seen(stream, trace) == []


PROGRAM = """\
for epoch in range(3):
    for x in data:
        metric.update_state(x)
    for x in held_out:
        metric.update_state(x)
    print(metric.result())
"""


def use_of(tmp_path, read_line, update_lines=(3,), num_resets=0, metric=None):
    file, resets = tmp_path / "train.py", MetricResets()
    file.write_text(PROGRAM)
    metric = metric or keras.metrics.Mean(name="loss")
    for _ in range(3):
        for line in update_lines:
            resets.on_update(metric, [("step.py", "step", 9), (str(file), "<module>", line)])
        resets.on_result(metric, [(str(file), "<module>", read_line)])
    for _ in range(num_resets):
        resets.on_reset(metric)
    return [found.cause for found in resets.diagnoses()]


def test_a_metric_that_is_read_each_epoch_and_never_reset_is_found(tmp_path):
    (plain,) = use_of(tmp_path, 6)
    (mixed,) = use_of(tmp_path, 6, (3, 5))
    assert "mixed" in mixed
    assert "mixed" not in plain


def test_a_metric_that_is_made_anew_in_each_epoch_and_read_twice_is_passed_over(tmp_path):
    file, resets = tmp_path / "train.py", MetricResets()
    file.write_text(PROGRAM)
    metrics = [keras.metrics.Mean() for _ in range(3)]
    for metric in metrics:
        resets.on_update(metric, [(str(file), "<module>", 3)])
        for _ in range(2):
            resets.on_result(metric, [(str(file), "<module>", 6)])
    assert resets.diagnoses() == []


def test_metrics_that_are_reset_or_meant_to_run_on_are_passed_over(tmp_path):
    assert use_of(tmp_path, 6, num_resets=1) == []
    assert use_of(tmp_path, 3) == []
    assert use_of(tmp_path, 6, metric=keras.metrics.Sum()) == []
