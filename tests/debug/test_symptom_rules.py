"""The rules find what is wrong with a training run, and leave healthy ones alone."""

import math

import keras
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from headstart.debug.symptoms.callback import SymptomRules, find_symptoms
from headstart.debug.symptoms.curves import write_curves
from headstart.debug.symptoms.trace import LayerActivity, Probe, StepSample, TrainingTrace

SPARSE = "sparse_categorical_crossentropy"


def symptoms(trace):
    return [found.symptom for found in find_symptoms(trace)]


def sample(step=0, gradients=(1e-2, 1e-2, 1e-2), ratio=1e-3, has_gradient=(True, True, True)):
    return StepSample(
        step=step,
        names=("net/first/kernel", "net/middle/kernel", "net/last/kernel"),
        has_gradient=has_gradient,
        gradient_norms=tuple(10 * g for g in gradients),
        gradient_means=gradients,
        weight_norms=(1.0, 1.0, 1.0),
        update_ratios=(ratio,) * 3,
        is_kernel=(True, True, True),
        learning_rate=0.1,
    )


def run_of(losses, num_classes=10, **more):
    return TrainingTrace(losses=list(losses), num_classes=num_classes, **more)


FALLING = [2.3 * 0.97**step for step in range(100)]
FLAT = [2.30 + 0.01 * math.sin(step) for step in range(100)]


def test_falling_loss_is_healthy_whatever_the_gradients():
    trace = run_of(FALLING, samples=[sample(gradients=(1e-9, 1e-5, 1.0), ratio=5.0)])
    assert symptoms(trace) == []


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"samples": [sample(gradients=(1e-8, 1e-5, 1e-2))]}, "vanishing-gradient"),
        ({"samples": [sample(gradients=(1e3, 1.0, 1e-2))]}, "exploding-gradient"),
        ({"samples": [sample(ratio=1e-6)]}, "learning-rate-too-low"),
        ({"samples": [sample(ratio=0.5)]}, "learning-rate-too-high"),
        ({}, "loss-not-falling"),
    ],
)
def test_stuck_loss_is_explained_by_what_the_steps_show(more, expected):
    assert symptoms(run_of(FLAT, **more))[0] == expected


def test_weights_that_never_move_need_no_stuck_loss():
    samples = [sample(step=step, ratio=1e-11) for step in (0, 1, 20)]
    assert symptoms(run_of(FALLING[:12], samples=samples)) == ["learning-rate-too-low"]
    settled = [sample(gradients=(1e-9, 1e-9, 1e-9), ratio=1e-11)] * 3
    assert symptoms(run_of(FALLING[:12], samples=settled)) == []


def test_accuracy_of_a_guess_is_at_chance_only_after_a_while():
    flat = [math.log(4.0) + 0.001 * math.sin(step) for step in range(120)]
    labels = dict.fromkeys(range(4), 100)
    epochs = [{"accuracy": 0.26}] * 4
    assert "accuracy-at-chance" in symptoms(run_of(flat, 4, epochs=epochs, label_counts=labels))
    learning = [{"accuracy": 0.4}] * 4
    assert symptoms(run_of(FALLING, 4, epochs=learning, label_counts=labels)) == []
    early = run_of(flat[:30], 4, epochs=epochs, label_counts=labels)
    assert "accuracy-at-chance" not in symptoms(early)


def test_difference_between_batches_is_no_oscillation():
    rng = np.random.default_rng(0)
    noisy = [float(value) for value in rng.exponential(2.0, 48)]
    assert "oscillation" not in symptoms(run_of(noisy, 0))


def test_one_prediction_more_or_less_does_not_hide_an_imbalance():
    flat = [0.1 + 0.001 * math.sin(step) for step in range(100)]
    seen = Probe(99, 64, predicted_counts={0: 61, 1: 3})
    trace = run_of(flat, 2, probes=[seen], label_counts={0: 392, 1: 8}, epochs=[{"accuracy": 0.98}])
    assert symptoms(trace) == ["class-imbalance"]


@pytest.mark.parametrize("end", [[], [math.nan] * 5])
def test_growing_loss_is_divergence(end):
    assert symptoms(run_of([2.3 * 1.1**step for step in range(60)] + end)) == ["divergence"]


def test_nan_out_of_a_falling_loss_is_no_divergence():
    assert symptoms(run_of([*FALLING, math.nan])) == []


def test_spike_that_ends_at_chance_is_a_too_high_rate():
    spiked = [2.6, 80.0, 40.0, *[2.31] * 60]
    assert symptoms(run_of(spiked, samples=[sample(ratio=3.0)]))[0] == "learning-rate-too-high"
    learnt = [2.6, 80.0, 40.0, *[0.5] * 60]
    assert symptoms(run_of(learnt, samples=[sample(ratio=3.0)])) == []


def test_swinging_loss_is_oscillation():
    losses = [2.3 + 1.5 * (-1) ** (step // 5) for step in range(100)]
    assert "oscillation" in symptoms(run_of(losses))


def test_turned_validation_loss_is_overfitting():
    epochs = [{"loss": 1.0 / (e + 1), "val_loss": 0.5 + 0.2 * e} for e in range(8)]
    assert symptoms(run_of(FALLING, epochs=epochs)) == ["overfitting"]
    steady = [{"loss": 1.0 / (e + 1), "val_loss": 1.1 / (e + 1)} for e in range(8)]
    assert symptoms(run_of(FALLING, epochs=steady)) == []


@pytest.mark.parametrize(
    ("activation", "dead", "saturated", "expected"),
    [("relu", 0.9, 0.0, "dead-units"), ("tanh", 0.0, 0.8, "saturated-units")],
)
def test_silent_and_saturated_layers_are_named(activation, dead, saturated, expected):
    seen = Probe(99, 64, (LayerActivity("net/hidden", activation, dead, saturated),))
    found = find_symptoms(run_of(FLAT, probes=[seen]))[0]
    assert (found.symptom, found.layer) == (expected, "net/hidden")
    assert symptoms(run_of(FALLING, probes=[seen])) == []


@pytest.mark.parametrize(
    ("labels", "expected"),
    [({0: 190, 1: 10}, "class-imbalance"), ({0: 95, 1: 105}, "class-collapse")],
)
def test_one_answer_for_everything_is_put_down_to_the_labels_where_they_explain_it(
    labels, expected
):
    seen = Probe(99, 64, predicted_counts={0: 64})
    flat = [math.log(2.0) + 0.001 * math.sin(step) for step in range(100)]
    assert expected in symptoms(run_of(flat, 2, probes=[seen], label_counts=labels))


def test_one_class_for_all_while_the_loss_still_falls_is_a_short_training():
    seen = Probe(63, 64, predicted_counts={1: 64})
    falling = [float(loss) for loss in np.linspace(0.944, 0.774, 64)]
    for losses, is_told in ((falling, False), ([0.944] * 4 + [0.7] * 60, True)):
        trace = run_of(losses, 2, probes=[seen], label_counts={0: 95, 1: 105})
        assert ("class-collapse" in symptoms(trace)) is is_told


def test_waiting_for_input_counts_only_where_it_is_long():
    slow = run_of(FALLING, waits_s=[0.02] * 100, step_times_s=[0.03] * 100)
    fast = run_of(FALLING, waits_s=[0.0002] * 100, step_times_s=[0.0003] * 100)
    assert symptoms(slow) == ["input-bound"]
    assert symptoms(fast) == []


def test_retraces_and_memory_growth_are_reported():
    mebibyte = 2**20
    growth = [(step, (500 + 40 * step // 20) * mebibyte) for step in range(0, 400, 20)]
    trace = run_of(FALLING, num_retraces=9, retrace_causes=("argument 'x' was a and is b",))
    trace.memory, trace.epoch_starts = growth, [0, 100]
    assert sorted(symptoms(trace)) == ["memory-growth", "retracing"]


def test_variable_without_gradient_is_named():
    trace = run_of(FALLING, samples=[sample(has_gradient=(False, True, True))])
    found = find_symptoms(trace)
    assert [(d.symptom, d.layer) for d in found] == [("missing-gradient", "net/first")]


def _data(num_rows=480, num_classes=4):
    rng = np.random.default_rng(0)
    y = rng.integers(0, num_classes, num_rows)
    x = rng.normal(size=(num_classes, 12))[y] + 0.5 * rng.normal(size=(num_rows, 12))
    return x.astype(np.float32), y


def _fit(optimizer, bias=0.0, **more):
    keras.utils.set_random_seed(0)
    x, y = _data()
    hidden = keras.layers.Dense(
        16, activation="relu", bias_initializer=keras.initializers.Constant(bias)
    )
    model = keras.Sequential([hidden, keras.layers.Dense(4, activation="softmax")])
    model.compile(optimizer, SPARSE, metrics=["accuracy"], jit_compile=False)
    rules = SymptomRules()
    history = model.fit(x, y, batch_size=16, epochs=4, verbose=0, callbacks=[rules], **more)
    return rules, history, model


def test_healthy_training_is_silent_and_unchanged():
    rules, watched, _ = _fit("adam")
    assert rules.diagnoses == []
    assert rules.trace.samples[0].step == 0
    assert len(rules.trace.losses) == 120
    np.testing.assert_allclose(
        np.mean(rules.trace.losses[-30:]), watched.history["loss"][-1], rtol=1e-3
    )
    keras.utils.set_random_seed(0)
    x, y = _data()
    bare = keras.Sequential(
        [keras.layers.Dense(16, activation="relu"), keras.layers.Dense(4, activation="softmax")]
    )
    bare.compile("adam", SPARSE, jit_compile=False)
    history = bare.fit(x, y, batch_size=16, epochs=4, verbose=0)
    assert history.history["loss"] == watched.history["loss"]


def test_too_high_rate_is_found_at_the_line_of_the_optimizer():
    rules, _, _ = _fit(keras.optimizers.SGD(1000.0))
    found = rules.diagnoses[0]
    assert found.symptom == "learning-rate-too-high"
    assert found.evidence["learning_rate"] == 1000.0
    assert found.file == __file__


def test_dead_layer_is_found():
    rules, _, _ = _fit("sgd", bias=-100.0)
    assert rules.diagnoses[0].symptom == "dead-units"


def test_rules_let_go_of_a_model_whose_step_raises():
    class Breaks(keras.layers.Layer):
        def call(self, x):
            return keras.ops.reshape(x, (-1, 7))

    model = keras.Sequential([keras.layers.Dense(4), Breaks()])
    model.compile("sgd", "mse", jit_compile=False)
    rules = SymptomRules()
    x, _ = _data()
    with pytest.raises(Exception, match=r"[Rr]eshape"):
        model.fit(x, x[:, :7], batch_size=16, verbose=0, callbacks=[rules])
    assert type(model.train_function).__name__ != "StepTap"
    assert rules.diagnoses == []


@pytest.mark.parametrize(("equal", "expected"), [(198, ["not-shuffled"]), (60, [])])
def test_batches_of_one_class_each_are_a_finding(equal, expected):
    counts = dict.fromkeys(range(10), 20)
    trace = run_of([2.3] * 20, label_counts=counts, num_pairs=200, num_equal_pairs=equal)
    assert symptoms(trace) == expected


def test_a_layer_that_gives_several_tensors_hides_no_other_from_the_probe():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((5, 3)), keras.layers.LSTM(4), keras.layers.Dense(3, activation="softmax")]
    )
    model.compile(loss=SPARSE)
    rules = SymptomRules(logs=False)
    model.fit(np.zeros((32, 5, 3)), np.zeros(32), verbose=0, callbacks=[rules])
    assert [len(probe.predicted_counts) for probe in rules.trace.probes] == [1]


def test_a_long_training_is_judged_ever_more_seldom(monkeypatch):
    rules, said = SymptomRules(), []
    monkeypatch.setattr(rules, "_say", lambda: said.append(len(rules.trace.epochs)))
    for epoch in range(20):
        rules.on_epoch_end(epoch, {"loss": 1.0})
    assert said == [1, 2, 4, 8, 16]


def test_what_was_measured_is_written_as_curves(tmp_path):
    probes = [
        Probe(step=3, num_rows=64, activities=(LayerActivity("net/first", "relu", 0.5, 0.0),))
    ]
    write_curves(run_of([2.0, 1.0], samples=[sample(step=1)], probes=probes), tmp_path)
    events = EventAccumulator(str(tmp_path), size_guidance={"tensors": 0}).Reload()
    last = {
        tag: (
            events.Tensors(tag)[-1].step,
            float(make_ndarray(events.Tensors(tag)[-1].tensor_proto)),
        )
        for tag in events.Tags()["tensors"]
    }
    assert last["step_loss"] == (1, 1.0)
    assert last["dead_share/net/first"] == (3, 0.5)
    assert last["gradient_norm/net/last/kernel"] == (1, pytest.approx(0.1))
    assert last["update_ratio/net/middle/kernel"] == (1, pytest.approx(1e-3))
