"""What a fit shows of outputs, data and settings that do not go together."""

import pickle
import sys
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import tensor_shape

from headstart.debug.callsites import CallSite
from headstart.debug.diagnosis import Diagnosis
from headstart.debug.preflight import fit_data
from headstart.debug.preflight.facts import facts_of, numbers
from headstart.debug.preflight.fit_data import Judged, judge_fit
from headstart.debug.preflight.inputs import exchanged, scale_of_splits, split_order, split_scale
from headstart.debug.preflight.outputs import check_outputs
from headstart.debug.preflight.placing import located
from headstart.debug.preflight.precision import half_precision
from headstart.debug.preflight.rules import facts_for
from headstart.debug.preflight.settings import odd_settings
from headstart.debug.preflight.training import stale_trainable_flags
from headstart.debug.preflight.verdict import inputs_tell_targets, verdict_of
from headstart.debug.running import watch as watch_module
from headstart.debug.running.fits import of_fits
from headstart.debug.running.signs import FaultSeen, Sign
from headstart.debug.running.watch import Watch
from headstart.debug.running.watched import watched
from headstart.debug.symptoms.eager_axes import watch_softmax
from headstart.debug.symptoms.graph_rules import check_graph, is_row_against_column
from headstart.debug.symptoms.own_loops import OwnLoops
from headstart.debug.symptoms.trace import TrainingTrace

ROWS = 96
X = np.random.default_rng(0).normal(size=(ROWS, 4)).astype("float32")
BITS = (X[:, 0] > 0).astype("float32")
CLASSES = np.arange(ROWS) % 3


def model_of(activation, units=1, loss="mse", optimizer="sgd", hidden=()):
    keras.utils.set_random_seed(1)
    last = keras.layers.Dense(units, activation=activation)
    model = keras.Sequential([keras.Input((4,)), *hidden, last])
    model.compile(loss=loss, optimizer=optimizer)
    return model


def symptoms_of(activation, units, loss, y):
    facts = facts_of(model_of(activation, units, loss), X, y, targets=y, is_complete=True)
    return [found.symptom for found in check_outputs(facts)]


LOGITS = keras.losses.BinaryCrossentropy(from_logits=True)
MULTI = (X[:, :3] > -0.5).astype("float32")
ONE_HOT = np.eye(3, dtype="float32")[CLASSES]


@pytest.mark.parametrize(
    ("activation", "units", "loss", "y", "symptom"),
    [
        ("softmax", 1, "binary_crossentropy", BITS, "softmax-on-one-unit"),
        ("softmax", 1, "mse", X[:, 0], "softmax-on-one-unit"),
        ("softmax", 1, "mae", BITS, "softmax-on-one-unit"),
        ("sigmoid", 1, "binary_crossentropy", CLASSES, "one-unit-for-classes"),
        ("sigmoid", 1, "categorical_crossentropy", BITS, "one-unit-for-classes"),
        ("relu", 1, "binary_crossentropy", BITS, "logits-without-from-logits"),
        ("tanh", 1, "binary_crossentropy", BITS, "logits-without-from-logits"),
        (None, 3, "sparse_categorical_crossentropy", CLASSES, "logits-without-from-logits"),
        ("relu", 1, LOGITS, BITS, "relu-on-logits"),
        ("sigmoid", 1, LOGITS, BITS, "softmax-with-from-logits"),
        ("sigmoid", 3, "categorical_crossentropy", ONE_HOT, "sigmoid-on-exclusive-classes"),
        ("softmax", 3, "binary_crossentropy", MULTI, "softmax-on-independent-labels"),
        ("softmax", 3, "mse", X[:, :3] * 50, "softmax-on-regression"),
        ("sigmoid", 1, "mse", X[:, 0] * 100, "targets-out-of-range"),
        ("tanh", 1, "mae", X[:, 0] * 100, "targets-out-of-range"),
        ("relu", 1, "mse", X[:, 0], "targets-out-of-range"),
        ("relu", 1, "mse", BITS, "relu-on-yes-or-no"),
        ("softmax", 3, "sparse_categorical_crossentropy", CLASSES / 255, "labels-are-fractions"),
        ("sigmoid", 1, "binary_crossentropy", BITS * 0, "one-class-only"),
        ("sigmoid", 1, "binary_crossentropy", BITS * 2 - 1, "labels-out-of-range"),
        ("sigmoid", 1, "mse", BITS, "mse-on-classes"),
        ("softmax", 3, "mse", ONE_HOT, "mse-on-classes"),
        ("softmax", 3, "binary_crossentropy", ONE_HOT, "binary-loss-on-classes"),
    ],
)
def test_what_must_not_meet_is_named(activation, units, loss, y, symptom):
    assert symptoms_of(activation, units, loss, y)[0] == symptom


def over_rows(logits):
    return tf.nn.softmax(logits, axis=0)


def test_a_softmax_over_the_rows_of_the_batch_is_named():
    found = symptoms_of(over_rows, 3, "sparse_categorical_crossentropy", CLASSES)
    assert found[0] == "softmax-over-rows"


@pytest.mark.parametrize("factor", [1.0, 0.02])
def test_weights_that_a_penalty_has_shrunk_are_told_from_those_that_are_small_by_design(factor):
    model = model_of(None, hidden=hidden())
    model.build((None, 4))
    model.set_weights([factor * value for value in model.get_weights()])
    found = [one.symptom for one in odd_settings(facts_of(model, X, X[:, 0]), [])]
    assert found == (["regularisation-too-strong"] if factor < 1.0 else [])


def test_weights_in_half_precision_come_before_what_they_lead_to():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, dtype="float16")])
    model.compile(loss="mse")
    (broken,) = half_precision(facts_of(model, X, X[:, 0]), is_broken=True)
    assert broken.evidence["is_certain"]
    assert half_precision(facts_of(model_of(None), X, X[:, 0]), is_broken=True) == []


@pytest.mark.parametrize(
    ("activation", "units", "loss", "y"),
    [
        ("sigmoid", 1, "binary_crossentropy", BITS),
        ("softmax", 3, "sparse_categorical_crossentropy", CLASSES),
        ("softmax", 3, "categorical_crossentropy", ONE_HOT),
        ("sigmoid", 3, "binary_crossentropy", MULTI),
        ("tanh", 1, "hinge", BITS * 2 - 1),
        ("relu", 1, "mse", np.abs(X[:, 0])),
        (None, 1, "mse", X[:, 0] * 1e5),
        ("exponential", 1, "poisson", CLASSES),
        (None, 1, LOGITS, BITS),
    ],
)
def test_what_goes_together_is_passed_over(activation, units, loss, y):
    assert symptoms_of(activation, units, loss, y) == []


def test_a_sequence_for_one_target_and_a_missing_flatten_are_told_apart():
    x = np.zeros((ROWS, 5, 4), "float32")
    found = {}
    for name, layers in {
        "return_sequences": [keras.layers.LSTM(3, return_sequences=True), keras.layers.Dense(1)],
        "Flatten": [keras.layers.Dense(1)],
    }.items():
        model = keras.Sequential([keras.Input((5, 4)), *layers])
        model.compile(loss="mse")
        found[name] = check_outputs(facts_of(model, x, BITS))[0]
    assert {one.symptom for one in found.values()} == {"missing-flatten"}
    assert all(name in one.cause for name, one in found.items())


@pytest.mark.parametrize(
    ("model", "y", "symptom"),
    [
        (model_of(None, optimizer=keras.optimizers.SGD(-0.1)), X[:, 0], "negative-learning-rate"),
        (
            model_of(None, optimizer=keras.optimizers.Adam(1e-9), hidden=()),
            X[:, 0] + 3,
            "learning-rate-too-low",
        ),
        (
            model_of(None, hidden=[keras.layers.Dense(8, kernel_initializer="zeros",
                                                      activation="relu")]),
            X[:, 0] + 3,
            "constant-initialisation",
        ),
        (
            model_of("sigmoid", loss="binary_crossentropy", optimizer="adam", hidden=[
                keras.layers.Dense(8, activation="relu"), keras.layers.Dropout(0.9)]),
            BITS,
            "dropout-too-high",
        ),
    ],
)  # fmt: skip
def test_settings_that_explain_a_bad_training_are_named(model, y, symptom):
    model.fit(X, y, epochs=1, verbose=0)
    found = judge_fit(model, {"x": X, "y": y}).found
    assert symptom in [one.symptom for one in found]


@pytest.mark.parametrize(
    ("targets", "symptom"),
    [(CLASSES, "classes-as-numbers"), (X[:, 1] * 9, "accuracy-on-regression")],
)
def test_accuracy_asked_of_a_regression_is_named(targets, symptom):
    model = model_of(None)
    model.compile(loss="mse", metrics=["accuracy"])
    model.fit(X, targets, verbose=0)
    facts = facts_of(model, X, targets, targets=targets, is_complete=True)
    assert [found.symptom for found in check_outputs(facts)] == [symptom]


def test_a_relu_at_the_end_that_is_silent_for_every_row_is_named():
    model = model_of("relu")
    model.layers[-1].set_weights([np.zeros((4, 1), "float32"), np.float32([-1])])
    y = np.abs(X[:, 0])
    assert [found.symptom for found in check_outputs(facts_of(model, X, y))] == ["silent-output"]


def test_a_layer_of_ones_own_at_the_end_is_not_taken_for_the_one_before_it():
    class Squash(keras.layers.Layer):
        def call(self, x):
            return keras.ops.sigmoid(x)

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1), Squash()])
    model.compile(loss="binary_crossentropy")
    assert check_outputs(facts_of(model, X, BITS)) == []


def test_pairs_of_which_the_first_is_always_the_better_one_are_no_single_class():
    left, right = keras.Input((4,)), keras.Input((4,))
    score = keras.layers.Dense(1)
    model = keras.Model([left, right], score(left) - score(right))
    model.compile(loss=LOGITS)
    ones = np.ones(ROWS, "float32")
    facts = facts_of(model, [X, X[::-1]], ones, targets=ones, is_complete=True)
    assert check_outputs(facts) == []
    assert verdict_of(facts).level == "unknown"


def test_an_untrained_model_that_is_right_by_luck_has_learnt_little():
    model = model_of("sigmoid", loss="binary_crossentropy")
    model.layers[-1].set_weights([np.float32([[0.01], [0], [0], [0]]), np.float32([0])])
    assert verdict_of(facts_of(model, X, BITS)).level in ("nothing", "little")


def hidden(units=16, **more):
    return [keras.layers.Dense(units, activation="relu", **more)]


@pytest.mark.parametrize(
    ("layers", "optimizer", "symptom"),
    [
        (hidden(kernel_initializer=keras.initializers.RandomNormal(stddev=40.0)), "sgd",
         "odd-initialisation"),
        (hidden(bias_initializer=keras.initializers.Constant(-9.0)), "sgd", "odd-initialisation"),
        (hidden(1), "sgd", "too-narrow"),
        (hidden(), keras.optimizers.SGD(1e-4), "learning-rate-too-low"),
        (hidden(), "adadelta", "learning-rate-too-low"),
    ],
)  # fmt: skip
def test_further_settings_that_explain_a_bad_training_are_named(layers, optimizer, symptom):
    model = model_of(None, optimizer=optimizer, hidden=layers)
    model.build((None, 4))
    assert symptom in [one.symptom for one in odd_settings(facts_of(model, X, X[:, 0]), [])]


def test_usual_settings_are_passed_over():
    layers = [*hidden(8, bias_initializer="ones"), *hidden(8, kernel_initializer="he_normal")]
    model = model_of(None, optimizer="adam", hidden=layers)
    model.build((None, 4))
    assert odd_settings(facts_of(model, X, X[:, 0]), []) == []


@pytest.mark.parametrize(
    ("activations", "severity"),
    [(["tanh"], "advice"), (["tanh"] * 3, "warning"), (["sigmoid"], "warning")],
)
def test_one_flat_layer_is_a_fault_of_nobodys_by_itself(activations, severity):
    hidden = [keras.layers.Dense(16, activation=name) for name in activations]
    model = model_of(None, optimizer="adam", hidden=hidden)
    found = odd_settings(facts_of(model, X, X[:, 0]), [])
    assert [one.severity for one in found if one.symptom == "saturating-activations"] == [severity]


def test_of_a_search_what_failed_is_advice_and_what_is_certain_stays_an_error():
    bad = Diagnosis(symptom="learning-rate-too-high", cause="")
    certain = Diagnosis(symptom="softmax-on-one-unit", cause="", evidence={"is_certain": True})
    fits = [Judged([bad, certain], "nothing"), Judged([bad], "unknown"), Judged([], "well")]
    assert [one.severity for one in of_fits(fits)] == ["advice", "error", "advice"]
    assert {one.severity for one in of_fits(fits[:2])} == {"error"}


def test_a_nan_in_one_training_of_a_search_ends_that_training_and_is_forgotten():
    model, sign = model_of(None), Sign("loss", "loss", "nan")
    watch = Watch(with_rules=True)
    with pytest.raises(FaultSeen):  # the only model
        watch.note(sign, model)
    search = Watch(with_rules=True)
    search._fits.judged[-1] = Judged([], "well")
    left_behind = tf.Variable([float("nan")])
    search.note(sign, model)
    assert model.stop_training
    search.finish()
    assert search.sign is None
    failed = Watch(with_rules=True)
    failed._fits.judged[-1] = Judged([], "nothing")
    failed.note(sign, model)
    failed.finish()
    assert failed.sign.name == "loss", left_behind


def test_a_training_that_came_to_something_is_left_alone():
    model = model_of(None, optimizer=keras.optimizers.Adam(0.05))
    y = X @ np.ones(4, "float32")
    model.fit(X, y, epochs=40, verbose=0)
    assert judge_fit(model, {"x": X, "y": y}).found == []


def test_inputs_of_either_sign_that_were_not_scaled_are_named():
    x = X.copy()
    x[:, 0] *= -50_000
    model = model_of("sigmoid", loss="binary_crossentropy")
    y = (X[:, 1] > 0).astype("float32")
    model.fit(x, y, verbose=0)
    found = judge_fit(model, {"x": x, "y": y}).found
    assert "unscaled-input" in [one.symptom for one in found]


def test_inputs_that_are_almost_nothing_are_told_and_lose_no_other_finding():
    x, y = (X * 1e-5).astype("float32"), (X[:, 1] > 0).astype("float32")
    model = model_of("sigmoid", loss="mse")
    model.fit(x, y, verbose=0)
    found = [one.symptom for one in judge_fit(model, {"x": x, "y": y}).found]
    assert "inputs-nearly-zero" in found


def test_a_short_training_whose_loss_still_falls_is_no_fault():
    y = (X[:, 0] > 0).astype("int32")
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    kernel = np.zeros((4, 2), "float32")
    kernel[0] = 0.5, -0.5  # begins on the wrong side
    model.set_weights([kernel, np.zeros(2, "float32")])
    for falls, expected in ((True, []), (False, ["no-better-than-constant"])):
        losses = np.linspace(0.81, 0.71, 64) if falls else np.full(64, 0.81)
        trace = TrainingTrace(losses=[float(loss) for loss in losses])
        found = judge_fit(model, {"x": X, "y": y}, trace).found
        assert [o.symptom for o in found if o.symptom == "no-better-than-constant"] == expected


def test_only_a_split_that_hides_classes_is_a_finding():
    ordered = np.sort(CLASSES)
    assert split_order(ordered, 0.3)[0].symptom == "sorted-validation-split"
    assert split_order(CLASSES, 0.3) == []
    assert split_order(np.sort(X[:, 0]), 0.3) == []


def test_splits_that_were_scaled_differently_are_a_finding():
    assert split_scale(X, X * 255)[0].symptom == "split-scale"
    assert split_scale(X, X * 2) == []


def test_pictures_that_go_through_two_preprocessings_are_found_in_keras_own_streams():
    pictures = np.random.default_rng(1).uniform(0, 255, (32, 4, 4, 3)).astype("float32")
    labels = np.zeros((32, 2), "float32")
    streams = tf.keras.preprocessing.image.ImageDataGenerator
    trained, held_out = (
        streams(preprocessing_function=prepare).flow(pictures, labels, batch_size=16, seed=1)
        for prepare in (lambda one: one / 127.5 - 1.0, lambda one: one / 255.0)
    )
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    batch = (tf.constant(pictures / 127.5 - 1.0), labels)
    found = scale_of_splits({"x": trained, "validation_data": held_out}, [batch])
    assert [one.symptom for one in found] == ["split-scale"]
    assert "two different preprocessings" in found[0].cause
    assert scale_of_splits({"x": trained, "validation_data": trained}, [batch]) == []
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002
    assert held_out.total_batches_seen == 0


def test_data_sets_are_not_read_again_where_the_program_would_notice():
    def rows(x):
        return tf.data.Dataset.from_tensor_slices((x, BITS)).batch(16)

    drawn = []

    def stream():
        for row in X:
            drawn.append(row)
            yield row * 255, 0.0

    shape = (tf.TensorSpec((4,)), tf.TensorSpec(()))
    batch = (tf.constant(X[:16]), BITS[:16])
    for held_out in (rows(X * 255), rows(X * 255).shuffle(8)):
        found = scale_of_splits({"x": rows(X), "validation_data": held_out}, [batch])
        assert [one.symptom for one in found] == ["split-scale"]
    for held_out in (
        tf.data.Dataset.from_generator(stream, output_signature=shape).batch(16),
        rows(X * 255).shuffle(5000),
        rows(X * 255).repeat(),
    ):
        assert scale_of_splits({"x": rows(X), "validation_data": held_out}, [batch]) == []
    assert drawn == []
    assert scale_of_splits({"x": rows(X), "validation_data": rows(X * 255)}) == []


def test_pictures_with_some_noise_are_prepared_alike():
    pictures = np.random.default_rng(1).uniform(0, 1, (32, 4, 4, 3))
    noisy = pictures + np.random.default_rng(2).normal(0, 0.1, pictures.shape)
    assert split_scale(noisy, pictures) == []


def test_a_stream_of_batches_is_not_read_for_its_numbers():
    class Endless(keras.utils.PyDataset):
        def __len__(self):
            return 3

        def __getitem__(self, place):
            raise AssertionError("read")

        def __iter__(self):
            raise AssertionError("read")

    assert numbers(Endless()) is None
    assert exchanged({"x": Endless(), "batch_size": 64}, TrainingTrace(has_finished=True)) == []


def test_a_verdict_compares_with_the_best_constant():
    class Answers(keras.Model):
        def call(self, x):
            return x[:, :1]

    model = Answers()
    model.compile(loss="mse")
    assert verdict_of(facts_of(model, X, X[:, 0])).level == "well"
    assert verdict_of(facts_of(model, X, X[:, 1])).level == "nothing"


def test_of_rare_answers_all_that_were_seen_count_not_the_few_that_are_looked_at():
    class Answers(keras.Model):
        def call(self, x):
            return keras.ops.sigmoid(0.15 * x[:, :1] - 3.0)

    model = Answers()
    model.compile(loss="binary_crossentropy")
    rare = (X[:, 0] > np.sort(X[:, 0])[-6]).astype("float32")  # 5 of 96
    facts, seen = facts_of(model, X, rare), {0: 8400, 1: 600}  # of which 7 % are
    assert verdict_of(facts, last_loss=0.2).level != "well"
    assert verdict_of(facts, last_loss=0.2, label_counts=seen).level == "well"
    assert verdict_of(facts, last_loss=0.25, label_counts=seen).level != "well"


def test_inputs_and_targets_that_were_shuffled_apart_are_told_from_those_that_belong_together():
    model = model_of("sigmoid", loss="binary_crossentropy")
    apart = np.random.default_rng(5).permutation(BITS)
    assert inputs_tell_targets(facts_of(model, X, BITS)) is True
    assert inputs_tell_targets(facts_of(model, X, apart)) is False


def test_a_row_against_a_column_is_found_in_a_graph():
    @tf.function
    def loss(targets, predictions):
        return tf.reduce_mean(tf.square(targets - predictions))

    graph = loss.get_concrete_function(tf.TensorSpec([None]), tf.TensorSpec([None, 1])).graph
    fine = loss.get_concrete_function(tf.TensorSpec([None, 1]), tf.TensorSpec([None, 1])).graph
    assert [found.symptom for found in check_graph(graph)] == ["silent-broadcast"]
    assert check_graph(fine) == []
    assert not is_row_against_column((4,), (4, 4))


@pytest.mark.parametrize(
    ("weights", "axis", "is_wrong"),
    [((4, 3), 0, True), ((4, 3), -1, False), ((4, 8), 0, False), ((4, 1), 0, False)],
)
def test_a_softmax_over_rows_is_told_in_a_graph_from_one_of_rows_against_rows(
    weights, axis, is_wrong
):
    @tf.function
    def answers(x):
        return tf.nn.softmax(x @ tf.ones(weights), axis=axis)

    graph = answers.get_concrete_function(tf.TensorSpec([8, 4])).graph
    assert [one.symptom for one in check_graph(graph)] == ["softmax-over-rows"] * is_wrong


@pytest.mark.parametrize("module", [tf.nn, keras.ops], ids=["tf.nn", "keras.ops"])
@pytest.mark.parametrize(
    ("shape", "axis", "is_wrong"),
    [((8, 3), 0, True), ((8, 3), -1, False), ((8, 8), 0, False), ((8, 1), 0, False)],
)
def test_a_softmax_over_rows_is_told_where_no_graph_shows_it(
    monkeypatch, module, shape, axis, is_wrong
):
    for home in (tf.nn, keras.ops):  # put back afterwards
        original = home.softmax
        monkeypatch.setattr(home, "softmax", original)
        monkeypatch.setattr(sys.modules[original.__module__], original.__qualname__, original)
    found = []
    watch_softmax(module, found.append)
    assert pickle.loads(pickle.dumps(module.softmax)) is module.softmax
    scores = tf.random.normal(shape)
    for _ in range(2):
        shares = module.softmax(scores, axis=axis)
    np.testing.assert_allclose(tf.reduce_sum(shares, axis), 1.0, rtol=1e-5)
    assert [one.symptom for one in found] == ["softmax-over-rows"] * is_wrong
    assert all(one.file == __file__ for one in found)


CROSS_ENTROPIES = {
    "probabilities": lambda y, p: keras.losses.categorical_crossentropy(y, tf.nn.softmax(p)),
    "yes or no": lambda y, p: keras.losses.binary_crossentropy(y, tf.sigmoid(p)),
    "logits": lambda y, p: keras.losses.categorical_crossentropy(y, p, from_logits=True),
    "object": lambda y, p: keras.losses.BinaryCrossentropy(from_logits=True)(y, p),
    "softmax": tf.nn.softmax_cross_entropy_with_logits,
    "sigmoid": tf.nn.sigmoid_cross_entropy_with_logits,
}


@pytest.mark.parametrize("kind", CROSS_ENTROPIES)
def test_labels_in_the_place_of_predictions_are_found_in_a_graph(kind):
    weights, cross_entropy = tf.Variable(tf.ones((4, 3))), CROSS_ENTROPIES[kind]

    def found(loss):
        def step(x, y):
            with tf.GradientTape() as tape:
                value = loss(x, y)
            return tape.gradient(value, weights)

        traced = tf.function(step, autograph=False)
        spec = tf.TensorSpec([None, 4]), tf.TensorSpec([None, 3])
        graph = traced.get_concrete_function(*spec).graph
        return [one.symptom for one in check_graph(graph)]

    def swapped(x, y):
        if kind in ("probabilities", "yes or no"):  # the function squashes its second argument
            return cross_entropy(tf.nn.softmax(x @ weights), y)
        return cross_entropy(x @ weights, y)

    assert found(swapped) == ["labels-and-predictions-swapped"]
    assert found(lambda x, y: cross_entropy(y, x @ weights)) == []


@pytest.mark.parametrize("is_nested", [False, True])
def test_what_a_function_is_given_may_be_a_models_answer(is_nested):
    teacher, student = tf.Variable(tf.ones((4, 3))), tf.Variable(tf.ones((4, 3)))
    epsilon, graphs = tf.Variable(0.1), []

    @tf.function
    def distilled(x, answer):
        graphs.append(tf.compat.v1.get_default_graph())
        labels = tf.nn.softmax(x @ teacher)
        return tf.nn.softmax_cross_entropy_with_logits(labels=labels, logits=answer)

    @tf.function
    def smoothed(y, answer):
        graphs.append(tf.compat.v1.get_default_graph())
        return keras.losses.categorical_crossentropy(y * (1 - epsilon) + epsilon / 3, answer)

    def step(x, y):
        with tf.GradientTape() as tape:
            answer = x @ student
            value = distilled(x, answer) + smoothed(y, tf.nn.softmax(answer))
        return tape.gradient(value, student)

    (tf.function(step) if is_nested else step)(tf.ones((8, 4)), tf.ones((8, 3)) / 3)
    assert len(graphs) >= 2
    assert [check_graph(graph) for graph in graphs] == [[]] * len(graphs)


def test_a_student_that_learns_from_a_teacher_has_its_arguments_in_order():
    teacher, student = tf.Variable(tf.ones((4, 3))), tf.Variable(tf.ones((4, 3)))

    @tf.function
    def loss(x):
        return tf.nn.softmax_cross_entropy_with_logits(tf.nn.softmax(x @ teacher), x @ student)

    assert check_graph(loss.get_concrete_function(tf.TensorSpec([None, 4])).graph) == []


@pytest.mark.parametrize(
    "loss",
    [
        lambda x: tf.nn.softmax_cross_entropy_with_logits(x[:, :1], x @ tf.ones((4, 1))),
        lambda x: tf.nn.sparse_softmax_cross_entropy_with_logits(
            tf.cast(x[:, 0], tf.int32), x @ tf.ones((4, 1))
        ),
    ],
)
def test_a_softmax_cross_entropy_over_one_logit_is_found_in_a_graph(loss):
    traced = tf.function(loss, autograph=False)
    graph = traced.get_concrete_function(tf.TensorSpec([None, 4])).graph
    assert [one.symptom for one in check_graph(graph)] == ["softmax-on-one-unit"]


def dense(x, activation):
    return activation(x @ tf.ones((4, 3)))


def test_an_activation_is_told_where_it_is_asked_for_and_not_in_the_helper_that_calls_it():
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [None, 4])
        scores = dense(x, tf.nn.softmax)
        tf.nn.softmax_cross_entropy_with_logits(x[:, :3], scores)
    (found,) = check_graph(graph)
    assert found.symptom == "activation-on-logits"
    assert "scores = dense(x, tf.nn.softmax)" in found.source_context[2]


def test_one_logit_is_found_where_shapes_are_those_of_tf1(monkeypatch):
    monkeypatch.setattr(tensor_shape, "_TENSORSHAPE_V2_OVERRIDE", False)
    with tf.Graph().as_default() as graph:
        logits, labels = (
            tf.transpose(tf.compat.v1.placeholder(tf.float32, [1, None])) for _ in "ab"
        )
        tf.nn.softmax_cross_entropy_with_logits(labels, logits)
    assert [one.symptom for one in check_graph(graph)] == ["softmax-on-one-unit"]


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (np.random.default_rng(1).uniform(0, 1, (ROWS, 5)), True),
        (np.random.default_rng(1).dirichlet(np.ones(5), ROWS), False),
        (np.eye(5)[np.arange(ROWS) % 5] * (np.arange(ROWS) % 3 > 0)[:, None], False),
    ],
)
def test_a_divergence_of_what_is_no_distribution_is_found(targets, expected):
    facts = facts_of(model_of("relu", 5, "kld"), X, targets.astype("float32"))
    found = [one.symptom for one in check_outputs(facts)]
    assert ("targets-no-distribution" in found) is expected


def test_scores_of_an_attention_are_no_narrow_layer():
    steps = keras.Input((5, 4))
    shares = keras.layers.Softmax(axis=1)(keras.layers.Dense(1)(steps))
    mixed = keras.layers.Flatten()(keras.layers.Dot(axes=1)([shares, steps]))
    model = keras.Model(steps, keras.layers.Dense(1)(mixed))
    model.compile(loss="mse", optimizer="adam")
    found = odd_settings(facts_of(model, np.ones((ROWS, 5, 4), "float32"), X[:, 0]), [])
    assert "too-narrow" not in [one.symptom for one in found]


def test_gradients_that_change_nothing_and_pairs_that_do_not_belong_are_found():
    loops, weights = OwnLoops(), [tf.Variable([1.0]), tf.Variable([2.0])]
    for _ in range(12):
        with tf.GradientTape() as tape:
            loss = weights[0] * weights[1]
        gradients = tape.gradient(loss, weights)
        loops.on_gradient(weights, gradients)
    assert [found.symptom for found in loops.diagnoses()] == ["weights-never-change"]
    loops.on_apply(object(), gradients, weights[::-1])
    weights[0].assign([5.0])
    assert [found.symptom for found in loops.diagnoses()] == ["wrong-variables"]


SCALE = 1.0


def set_scale(value):
    global SCALE
    SCALE = value


def test_a_python_number_that_a_trace_has_fixed_is_found():
    @tf.function
    def step(x):
        return x * SCALE

    loops = OwnLoops()
    for scale in (1.0, 1.0, 2.0):
        set_scale(scale)
        step(tf.constant(1.0))
        loops.on_call(step)
    assert [found.symptom for found in loops.diagnoses()] == ["python-value-captured"]


def test_a_session_graph_that_grows_is_found():
    loops, graph = OwnLoops(), tf.Graph()
    with graph.as_default(), tf.compat.v1.Session() as session:
        for number in range(12):
            session.run(tf.constant(number))
            loops.on_session_run(session)
    assert [found.symptom for found in loops.diagnoses()] == ["graph-grows"]


def test_an_optimizer_made_anew_each_step_is_told_from_one_for_each_fold():
    weight = tf.Variable([1.0])

    class Optimizer:
        _trainable_variables = (weight,)

    anew, folds = OwnLoops(), OwnLoops()
    for _ in range(12):
        anew.on_apply(Optimizer(), [tf.constant([1.0])], [weight])
        fold = Optimizer()
        for _ in range(5):
            folds.on_apply(fold, [tf.constant([1.0])], [weight])
    assert [found.symptom for found in anew.diagnoses()] == ["optimizer-made-anew"]
    assert folds.diagnoses() == []


def test_a_class_for_each_step_is_no_missing_flatten_even_with_as_many_classes_as_steps():
    model = keras.Sequential([keras.Input((5, 4)), keras.layers.Dense(5, activation="softmax")])
    model.compile(loss="sparse_categorical_crossentropy")
    labels = np.arange(ROWS * 5).reshape(ROWS, 5) % 5
    assert check_outputs(facts_of(model, np.zeros((ROWS, 5, 4), "float32"), labels)) == []


def test_gradients_by_something_new_each_time_are_no_training():
    loops = OwnLoops()
    for number in range(12):
        image = tf.Variable([float(number)])
        with tf.GradientTape() as tape:
            loss = image * image
        loops.on_gradient([image], tape.gradient(loss, [image]))
    assert loops.diagnoses() == []


SETTERS = {
    "assigned": (
        "class Falling(keras.callbacks.Callback):\n"
        "    def __init__(self, lr):\n"
        "        self.lr = lr\n"
        "    def on_epoch_begin(self, epoch, logs=None):\n"
        "        lr = float(self.model.optimizer.learning_rate.numpy())\n"
        "        self.model.optimizer.learning_rate.assign(lr / 10)\n",
        6,
    ),
    "attribute": ("def fall(model):\n    model.optimizer.learning_rate = 0.0\nfall(model)\n", 2),
    "backend": ("K.set_value(model.optimizer.lr, 0.0)\n", 1),
    "schedule": (
        "def falling(epoch):\n    return 0.1 ** epoch\n"
        "calls = [keras.callbacks.LearningRateScheduler(falling)]\n",
        2,
    ),
    "unused": (
        "model.optimizer.learning_rate = 0.0\n"
        "def never_called():\n    other_optimizer.learning_rate = 3\n",
        1,
    ),
    "lambda": ("calls = [LearningRateScheduler(lambda epoch, rate: rate / 10)]\n", 1),
}


@pytest.mark.parametrize("how", [*SETTERS, "nowhere"])
def test_a_rate_that_dies_is_held_against_the_line_that_lowers_it(how, tmp_path):
    text, line = SETTERS.get(how, ("self.lr = 0.1\n", 99))
    file = tmp_path / f"{how}.py"
    file.write_text(text + "model.fit(x, y)\n")
    model = model_of(None)
    facts = facts_of(model, X, X[:, 0])
    rates = [1e-2, 1e-5, 1e-9, 1e-12, 1e-15, 1e-18]
    (found,) = [one for one in odd_settings(facts, rates) if one.symptom == "learning-rate-decayed"]
    assert found.evidence["is_far_off"]
    site = CallSite(str(file), 99)
    assert located(found, model, site).line == line
    # A cosine is as low only at its end, restarts rise again, and a rate that is cut to a
    # hundredth once goes on.
    for sound in (
        [1.0, 0.9, 0.5, 0.2, 0.01, 1e-9],
        [1.0, 0.75, 0.25, 0.0, 1.0, 0.75, 0.25, 0.0],
        [1.0, 1e-2, 1e-2, 1e-2],
    ):
        assert "learning-rate-decayed" not in [
            one.symptom for one in odd_settings(facts, [1e-2 * rate for rate in sound])
        ]


@pytest.mark.parametrize("is_streamed", [False, True])
def test_rows_that_weigh_nothing_say_nothing_of_a_model(is_streamed):
    keras.utils.set_random_seed(0)
    weights = (np.arange(ROWS) % 3 > 0).astype("float32")
    targets = np.where(weights, X[:, 0], -40.0).astype("float32")  # what a broken sensor says
    model = model_of(None)
    model.layers[-1].set_weights([np.eye(4, 1, dtype="float32"), np.zeros(1, "float32")])
    given = {"x": X, "y": targets, "sample_weight": weights}
    batches = [(X[:48], targets[:48], weights[:48]), (X[48:], targets[48:], weights[48:])]
    facts = facts_for(model, {} if is_streamed else given, batches)
    assert len(facts.y) == weights.sum()
    assert facts.y.min() > -40.0
    assert verdict_of(facts).level == "well"
    assert len(facts_for(model, {**given, "sample_weight": np.ones(ROWS)}, []).y) == ROWS


@pytest.mark.parametrize(("last", "severity"), [(0.1, "advice"), (0.9, "error")])
def test_a_loop_of_ones_own_goes_well_where_its_loss_falls(tmp_path, monkeypatch, last, severity):
    file = tmp_path / "train.py"
    file.write_text("tf.exp(x)\n")
    watch = Watch(with_rules=True)
    for name, value in (("fits", 0), ("session_runs", 0), ("own_steps", 30)):
        monkeypatch.setattr(watched, name, value)
    monkeypatch.setattr(watch_module, "files_of_program", lambda _: [str(file)])
    for value in [1.0] * 10 + [last] * 90:
        watch.losses.note("loss", value)
    (found,) = (one for one in watch.diagnoses() if one.symptom == "result-thrown-away")
    assert found.severity == severity


def test_of_rows_with_large_activations_only_a_few_are_looked_at(monkeypatch):
    hidden = [keras.layers.Dense(16), keras.layers.Dense(15)]  # with the last, 128 bytes a row
    model = model_of(None, hidden=hidden)
    assert len(facts_of(model, X, BITS).x) == ROWS
    monkeypatch.setattr("headstart.debug.preflight.facts.MAX_BYTES", 20 * 128)
    facts = facts_of(model, X, BITS, targets=BITS, is_complete=True)
    assert {len(part) for part in (facts.x, facts.y, facts.y_pred, facts.uses[0].output)} == {20}
    assert len(facts.targets) == ROWS
    np.testing.assert_array_equal(facts.y, (facts.x[:, 0] > 0).astype("float32"))
    assert facts_of(model, X, None).y is None


class Pupil(keras.Model):
    """Trains a part of itself, in a step of its own."""

    def __init__(self):
        super().__init__()
        self.pupil, self.teacher = keras.layers.Dense(1), keras.layers.Dense(1)

    def call(self, x):
        return self.pupil(x) + 0.0 * self.teacher(x)

    def train_step(self, data):
        x, _ = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self.pupil(x) - self.teacher(x)) ** 2)
        weights = self.pupil.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return {"loss": loss}


def test_a_step_of_ones_own_may_train_a_part_and_keras_step_trains_what_it_was_compiled_with():
    pupil = Pupil()
    pupil.compile("adam")
    pupil.fit(X, BITS, verbose=0)
    assert stale_trainable_flags(SimpleNamespace(model=pupil, is_new=False)) == []
    model = model_of(None, hidden=[keras.layers.Dense(4)])
    model.fit(X, BITS, verbose=0)
    assert stale_trainable_flags(SimpleNamespace(model=model, is_new=False)) == []
    model.layers[0].trainable = False
    (found,) = stale_trainable_flags(SimpleNamespace(model=model, is_new=False))
    assert found.symptom == "stale-trainable"


def test_every_symptom_that_is_named_in_a_table_is_told_somewhere():
    package = Path(fit_data.__file__).parents[1]
    told = "".join(
        file.read_text() for file in package.rglob("*.py") if str(file) != fit_data.__file__
    )
    named = (*fit_data.SHAPES, *fit_data.NOTHING_TRAINED, *fit_data.IN_SPITE)
    assert [name for name in named if f'"{name}"' not in told] == []


def test_one_target_for_all_may_be_meant():
    assert symptoms_of(None, 1, "mse", BITS * 0 + 3) == []
    assert "one-class-only" in symptoms_of("sigmoid", 1, "mse", BITS * 0)
    model = model_of("sigmoid", loss="binary_crossentropy")
    names = []
    for is_trainable in (True, False):
        model.layers[-1].trainable = is_trainable
        facts = facts_of(model, X, BITS * 0, targets=BITS * 0, is_complete=True)
        names.append([one.symptom for one in check_outputs(facts)])
    assert names == [["one-class-only"], []]


@pytest.mark.parametrize("with_axis", [False, True])
def test_targets_that_weigh_nothing_say_nothing(with_axis):
    model = model_of("sigmoid", loss="binary_crossentropy")
    y = np.where(X[:, 3:] > 0.5, -1.0, BITS).astype("float32")
    weights = (y >= 0).astype("float32")
    given = {"x": X, "y": y, "sample_weight": weights if with_axis else weights[:, 0]}
    facts = facts_for(model, given, [])
    assert [one.symptom for one in check_outputs(facts)] == []
    assert (y == -1).any()
    batch = (X, y, given["sample_weight"])
    assert [one.symptom for one in check_outputs(facts_for(model, {}, [batch]))] == []
    plain = facts_for(model, {"x": X, "y": y}, [])
    assert [one.symptom for one in check_outputs(plain)] == ["labels-out-of-range"]


def test_right_answers_that_weigh_nothing_stay_as_they_are():
    model = model_of("sigmoid", units=4, loss="binary_crossentropy")
    y = (X > 0).astype("float32")
    weights = (np.random.default_rng(1).random(y.shape) < 0.1).astype("float32")
    facts = facts_for(model, {"x": X, "y": y, "sample_weight": weights}, [])
    np.testing.assert_array_equal(facts.y, y)
    unknown = np.where(weights > 0, y, np.nan).astype("float32")
    facts = facts_for(model, {"x": X, "y": unknown, "sample_weight": weights}, [])
    assert set(np.unique(facts.y)) == {0.0, 1.0}
    assert abs(facts.y.mean() - y[weights > 0].mean()) < 0.1
