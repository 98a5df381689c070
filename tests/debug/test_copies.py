"""Target networks that are left behind, sums of gradients without end, and derivatives twice."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from headstart.debug.callsites import CallSite
from headstart.debug.preflight.facts import facts_of
from headstart.debug.preflight.labels import divided_masks
from headstart.debug.symptoms.accumulated import never_reset
from headstart.debug.symptoms.copies import Copies, watch_copies
from headstart.debug.symptoms.derivatives import Derivatives

X = np.random.default_rng(0).normal(size=(16, 3)).astype("float32")


def network():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])


@pytest.fixture
def copies(monkeypatch):
    monkeypatch.setattr(keras.Model, "set_weights", keras.Model.set_weights)
    known = Copies()
    known.steps = 0
    watch_copies(known, lambda: known.steps)
    return known


def test_a_target_network_that_stays_as_it_was_is_found(copies):
    online, target = network(), network()
    target.set_weights(online.get_weights())
    copies.steps = 150
    (found,) = copies.diagnoses()
    assert (found.symptom, found.file) == ("target-never-updated", __file__)
    if copies.steps < 0:
        target.set_weights(online.get_weights())  # never run
    assert any("never run" in line for line in found.source_context if line.startswith(">"))


@pytest.mark.parametrize("way", ["again", "slowly", "few"])
def test_a_target_network_that_follows_is_passed_over(copies, way):
    online, target = network(), network()
    target.set_weights(online.get_weights())
    online.layers[0].kernel.assign_add(tf.ones([3, 1]))
    copies.steps = 20 if way == "few" else 150
    if way == "again":
        target.set_weights(online.get_weights())
        copies.steps = 400
    if way == "slowly":
        for slow, fast in zip(target.weights, online.weights, strict=True):
            slow.assign(0.9 * slow + 0.1 * fast)
    assert copies.diagnoses() == []


def test_a_reference_that_stays_on_purpose_is_passed_over(copies):
    policy, reference = network(), network()
    reference.set_weights(policy.get_weights())
    copies.steps = 500
    assert copies.diagnoses() == []


SUMS = """
for slot, gradient in zip(slots, gradients):
    slot.assign_add(gradient)
optimizer.apply_gradients(zip(slots, weights))
"""
RESET = """
for slot in slots:
    slot.assign(tf.zeros_like(slot))
"""


@pytest.mark.parametrize(("text", "is_found"), [(SUMS, True), (SUMS + RESET, False)])
def test_sums_of_gradients_that_are_never_set_back_are_found(tmp_path, text, is_found):
    file = tmp_path / "program.py"
    file.write_text(text)
    slots = [tf.Variable([1.0, 2.0])]
    found = []

    @tf.function
    def apply():
        found.extend(never_reset([slot.value() for slot in slots], lambda: CallSite(str(file), 4)))

    apply()
    assert [one.line for one in found] == ([3] if is_found else [])
    assert [one.line for one in never_reset(slots, lambda: CallSite(str(file), 4))] == [
        one.line for one in found
    ]
    assert never_reset([tf.constant([1.0])], lambda: CallSite(str(file), 4)) == []
    assert never_reset([None], lambda: CallSite(str(file), 4)) == []


@pytest.mark.parametrize("is_right", [True, False])
@pytest.mark.parametrize("is_traced", [True, False])
def test_the_first_derivative_taken_for_the_second_is_found(is_right, is_traced):
    derivatives, x = Derivatives(), tf.constant([0.5, 1.0])

    def second(x):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                u = tf.sin(x)
            u_x = inner.gradient(u, x)
            derivatives.on_gradient(inner, u, x, lambda: None)
        target = u_x if is_right else u
        derivatives.on_gradient(outer, target, x, lambda: CallSite(__file__, 1))
        return outer.gradient(target, x)

    (tf.function(second) if is_traced else second)(x)
    assert [one.symptom for one in derivatives.found] == (
        [] if is_right else ["same-derivative-twice"]
    )


def test_masks_that_were_divided_like_pixels_are_found():
    model = network()
    model.compile("sgd", "binary_crossentropy")
    for divided_by, is_found in ((255.0, True), (1.0, False)):
        y = ((X[:, :1] > 0) / divided_by).astype("float32")
        found = divided_masks(facts_of(model, X, y, targets=y, is_complete=True))
        assert [one.symptom for one in found] == ["labels-are-fractions"] * is_found
