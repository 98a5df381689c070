"""`check` and `run` hold a program against one list: no rule stands outside of it."""

import ast
from pathlib import Path

import keras
import numpy as np
import pytest

from headstart.debug import preflight as package
from headstart.debug.preflight import rules
from headstart.debug.preflight.fit_data import judge_fit
from headstart.debug.preflight.rules import RULES, Case, Rule
from headstart.debug.preflight.run import preflight
from headstart.debug.symptoms.trace import TrainingTrace

pytestmark = pytest.mark.filterwarnings("ignore:.*softmax over axis:UserWarning")
FOLDER = Path(package.__file__).parent
ELSEWHERE = {
    "apply_rules": "applies the list",
    "said_once": "thins out what the list found",
    "preflight": "applies it",
    "check_fit": "applies it",
    "check_case": "applies it",
    "at_once": "applies it",
    "split_scale": "is scale_of_splits, of arrays",
    "order": "run judges every batch that a step is fed (symptoms/batches.py)",
    "order_of": "is order, of labels",
    "nothing_tracked": "is what nothing_to_train says of a model that has no variables",
    "overfit_one_batch": "takes seconds: run experiments only where a training came to nothing",
    "one_batch": "is what run makes of overfit_one_batch",
    "too_strong": "is one of odd_settings",
    "moved": "is moving_split, of a data set as it is split",
    "loss_without_scale": "speaks of own loops, which check does not enter",
}
"""What returns findings and is no rule of the list, and why."""


def _finders() -> set[str]:
    """Names of the public functions of the package that return findings."""
    return {
        node.name
        for file in FOLDER.glob("*.py")
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
        and node.returns is not None and ast.unparse(node.returns) == "list[Diagnosis]"
    }  # fmt: skip


def test_every_rule_stands_in_the_list():
    listed = [rule.finds.__name__ for rule in RULES]
    assert len(listed) == len(set(listed))
    assert _finders() == set(listed) | set(ELSEWHERE)


def test_a_rule_that_one_of_the_two_leaves_out_says_why():
    assert all(bool(rule.only) == bool(rule.because) for rule in RULES)


X = np.random.default_rng(0).normal(size=(96, 4)).astype("float32")
BITS = (X[:, 0] > 0).astype("float32")
HARD = np.random.default_rng(1).integers(0, 2, 96).astype("float32")


def _model(*hidden, last="sigmoid", loss="binary_crossentropy", optimizer="sgd"):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4,)), *hidden, keras.layers.Dense(1, activation=last)])
    model.compile(loss=loss, optimizer=optimizer)
    return model


class AlwaysTraining(keras.layers.Layer):
    def __init__(self):
        super().__init__()
        self.norm = keras.layers.BatchNormalization()

    def call(self, x):
        return self.norm(x, training=True)


@pytest.mark.parametrize(
    ("made", "given", "symptom"),
    [
        ({"last": "softmax"}, {}, "softmax-on-one-unit"),
        ({"last": None}, {}, "logits-without-from-logits"),
        ({"optimizer": keras.optimizers.SGD(-1.0)}, {}, "negative-learning-rate"),
        ({"optimizer": keras.optimizers.SGD(1e5)}, {}, "learning-rate-too-high"),
        ({}, {"x": X * 1000}, "unscaled-input"),
        ({}, {"x": X * 0 + 1}, "constant-input"),
        ({}, {"validation_data": (X[:40], HARD[:40])}, "validation-on-training-rows"),
        ({}, {"validation_data": (X * 100, HARD)}, "split-scale"),
        ({}, {"y": np.sort(BITS), "validation_split": 0.2}, "sorted-validation-split"),
        ({"hidden": AlwaysTraining}, {}, "batchnorm-mode"),
    ],
)
def test_what_check_finds_is_what_run_finds(made, given, symptom):
    hidden = [made["hidden"]()] if "hidden" in made else []
    model = _model(*hidden, **{name: value for name, value in made.items() if name != "hidden"})
    given = {"x": X, "y": HARD, "shuffle": True, **given}
    data = (given["x"], given["y"])
    more = {"validation_split": given.get("validation_split", 0.0)}
    before = preflight(model, data, validation=given.get("validation_data"), **more)
    trace = TrainingTrace(losses=[0.7] * 200, has_finished=True, epochs=[{}])
    after = judge_fit(model, given, trace).found
    assert symptom in {one.symptom for one in before}
    assert symptom in {one.symptom for one in after}


@pytest.mark.parametrize(
    ("name", "first", "is_flat", "least", "is_told"),
    [
        ("vgg16", "block1_conv1", False, -124, False),
        ("resnet50", "conv1_conv", True, -124, False),
        ("resnet50", "conv1_conv", True, 0, True),
        ("own", "conv", False, -124, True),
    ],
)
def test_pixels_less_their_mean_are_what_a_pretrained_network_takes(
    name, first, is_flat, least, is_told
):
    pixels = keras.Input((4, 4, 3))
    features = keras.layers.Conv2D(2, 3, name=first)(pixels)
    backbone = keras.Model(pixels, features, name=name)
    again = features if is_flat else backbone(pixels)
    answers = keras.layers.Dense(1, "sigmoid")(keras.layers.Flatten()(again))
    model = keras.Model(pixels, answers)
    model.compile("sgd", "binary_crossentropy")
    x = np.random.default_rng(0).uniform(least, least + 275, (96, 4, 4, 3)).astype("float32")
    trace = TrainingTrace(losses=[0.7] * 20, has_finished=True, epochs=[{}])
    before = preflight(model, (x, HARD))
    for found in (before, judge_fit(model, {"x": x, "y": HARD}, trace).found):
        assert ("unscaled-input" in {one.symptom for one in found}) == is_told


def test_a_rule_that_breaks_is_kept_among_what_failed(monkeypatch):
    def broken(model):
        raise IndexError("a mistake of the rule's")

    failures = {}
    monkeypatch.setattr(rules, "failures", failures)
    assert Rule(broken, "model").of(Case(_model(), {}, None)) == []
    assert failures == {"the rule broken": 'IndexError("a mistake of the rule\'s")'}
