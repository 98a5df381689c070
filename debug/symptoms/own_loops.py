"""Rules about training loops that people write themselves: what becomes of the gradients.

The watch tells it of each gradient taken, each step an optimizer takes, each call of a tf.function
and each run of a session; the rules ask at the end what has come of them.
"""

import contextlib
import functools
import gc
import linecache
import sys
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from headstart.debug.callsites import CallSite, calling_site, is_users
from headstart.debug.diagnosis import Diagnosis
from headstart.debug.dump.origins import SITE
from headstart.debug.internals import private
from headstart.debug.source.syntax import called_in_inference, find_call_below, origin_of_argument
from headstart.debug.symptoms import kernels
from headstart.debug.symptoms.accumulated import never_reset
from headstart.debug.symptoms.captured import Captured
from headstart.debug.symptoms.copies import Copies
from headstart.debug.symptoms.derivatives import Derivatives
from headstart.debug.symptoms.graph_rules import one_sided
from headstart.debug.symptoms.kernels import Kernel, alike_units
from headstart.debug.symptoms.loss import divergence
from headstart.debug.symptoms.successors import Successors, has_state
from headstart.debug.symptoms.trace import TrainingTrace
from headstart.debug.symptoms.variables import MIN_STEPS, TrainedVariables, name_of, storage_of

MIN_GROWING_RUNS = 10
"""Runs of a session in a row before each of which its graph had grown."""

LEAST_RATE = 1e-6
"""Learning rate from which on weights move, in float32, unless their gradients are 0."""
GROWN_FACTOR = 1e3
"""Growth of a loss that is no chance."""
TINY = 1e-12
"""Gradients up to which they are 0, but for rounding."""


class OwnLoops:
    """What is known of the loops of one program."""

    def __init__(self) -> None:
        self.num_steps = 0
        self.variables = TrainedVariables()
        self._source_of: dict[int, tuple[Any, Any]] = {}
        self._sources: list[Any] = []
        self.applied_at: CallSite | None = None
        self._gradient_site: CallSite | None = None
        self._has_traced_gradient = False
        self._training: weakref.WeakSet[Any] = weakref.WeakSet()
        self._has_trained = False
        self._num_applied = 0
        self._known: set[int] = set()
        self._optimizer: Any = None
        self._optimizers: dict[int, tuple[Any, int, Any]] = {}
        self._captured = Captured()
        self._successors = Successors()
        self.derivatives = Derivatives()
        self.copies = Copies()
        self._versions: dict[int, tuple[Any, int, int]] = {}
        self._found: dict[str, Diagnosis] = {}

    def on_gradient(self, sources: Any, gradients: Any) -> None:
        """Note a gradient that a tape gave, eagerly or in a trace.

        Args:
            sources: Variables or tensors that the gradient was taken by.
            gradients: What came of it, in the same structure.
        """
        import tensorflow as tf

        if not any(hasattr(variable, "assign") for variable in tf.nest.flatten(sources)):
            return
        self._gradient_site = self._gradient_site or tracing_site()
        pairs = self.note_pairs(sources, gradients)
        self.variables.on_gradient(pairs, self._gradient_site)
        if tf.executing_eagerly():
            self.num_steps += 1
        else:
            self._has_traced_gradient = True

    def on_apply(self, optimizer: Any, gradients: Any, variables: Any) -> None:
        """Note a step of an optimizer, eager or in a trace.

        Args:
            optimizer: A Keras or TF1 optimizer.
            gradients: Gradients it was given, one a variable.
            variables: By what it was told to go with them; None where it knows.
        """
        import tensorflow as tf

        self._num_applied += 1
        self._known.add(id(optimizer))
        self._optimizer = optimizer
        self.applied_at = self.applied_at or tracing_site()
        changed = variables or getattr(optimizer, "_trainable_variables", ())
        self.variables.on_apply(changed, self.applied_at)
        if tf.executing_eagerly():  # a trace is made once, however many steps follow
            self._successors.on_step(optimizer, variables, self.applied_at)
            known, steps, _ = self._optimizers.get(id(optimizer), (optimizer, 0, None))
            shapes = tuple(tuple(variable.shape) for variable in changed)
            self._optimizers[id(optimizer)] = (known, steps + 1, shapes)
            if len(self._optimizers) >= MIN_STEPS and "fresh" not in self._found:
                self._judge_fresh(optimizer)
        if "never reset" not in self._found:
            for one in never_reset(gradients, tracing_site):
                self._found["never reset"] = one
        if "one-sided" not in self._found:
            for one in one_sided(gradients, self.applied_at):
                self._found["one-sided"] = one
        self._check_pairs(gradients, variables)

    def on_apply_in_fit(self, gradients: Any, variables: Any) -> None:
        """Look at what a step of ``fit`` gives its optimizer, and forget the step.

        Args:
            gradients: What the optimizer was given.
            variables: By what it was told to go with them; None where it knows.
        """
        self._check_pairs(gradients, variables)
        self._source_of, self._sources = {}, []  # else the last graph would live on

    def note_pairs(self, sources: Any, gradients: Any) -> list[tuple[Any, Any]]:
        """Note which gradient is by which variable; all that is asked of a step of ``fit``.

        Args:
            sources: What gradients were taken by.
            gradients: What came of it, in the same structure.

        Returns:
            Each variable with its gradient.
        """
        import tensorflow as tf

        variables, found = tf.nest.flatten(sources), tf.nest.flatten(gradients)
        pairs = list(zip(variables, found, strict=False))
        self._sources = [storage_of(one) for one in variables]
        self._source_of = {id(grad): (grad, var) for var, grad in pairs if grad is not None}
        return pairs

    def _check_pairs(self, gradients: Any, variables: Any) -> None:
        """Find a gradient that goes to another of the variables that its tape was asked for.

        Gradients of a copy (of a worker, of an inner loop) are meant for the original.
        """
        known = {id(one) for one in self._sources}
        for gradient, variable in zip(gradients, variables or (), strict=False):
            source = self._source_of.get(id(gradient))
            if source is None or "wrong" in self._found:
                continue
            own, other = storage_of(source[1]), storage_of(variable)
            if own is not other and id(other) in known:
                self._found["wrong"] = _wrong_variable(source[1], variable)

    def on_call(self, function: Any) -> None:
        """Note a finished call of a tf.function."""
        if self._has_traced_gradient:
            self._has_traced_gradient = False
            self._training.add(function)
            self._has_trained = True  # a function's own step is gone when that returns
        if function in self._training:
            self.num_steps += 1
        self._captured.on_call(function)

    def trains(self, function: Any) -> bool:
        """Tell whether a tf.function takes gradients itself."""
        return function in self._training

    def on_session_run(self, session: Any) -> None:
        """Note a run of a TF1 session."""
        graph = session.graph
        version = int(graph.version)
        _, before, grown = self._versions.get(id(graph), (graph, version, 0))
        grown = grown + 1 if version > before else 0
        self._versions[id(graph)] = (graph, version, grown)
        if grown == MIN_GROWING_RUNS:
            self._found["grows"] = _growing_graph(version, calling_site())

    @property
    def _rate(self) -> float:
        rate = getattr(self._optimizer, "learning_rate", 0.0)
        return float(np.asarray(rate)) if np.ndim(rate) == 0 else 0.0

    @property
    def num_optimizers(self) -> int:
        """How many optimizers took steps; those made anew at each step count as one."""
        return 1 if "fresh" in self._found else len(self._known)

    @property
    def loss_site(self) -> CallSite | None:
        """The user's line that makes the loss, or the one that asks for its gradients."""
        return origin_of_argument(self._gradient_site, "gradient") or self._gradient_site

    @property
    def kernels(self) -> list[Kernel]:
        """The matrices that were trained, once that has gone on for a while."""
        site = self._gradient_site
        return self.variables.kernels(site) if self.num_steps >= kernels.MIN_STEPS else []

    @property
    def sum_in_words(self) -> str:
        """What a loss that is added up over the batch does to the updates; empty for others."""
        site = self.loss_site
        if site is None or "reduce_sum" not in linecache.getline(site.file, site.line):
            return ""
        return (
            " The loss is a sum over the batch (reduce_sum): its gradients are as many times "
            "larger as the batch has rows. Divide it by their number, or use tf.reduce_mean."
        )

    @property
    def graphs(self) -> list[Any]:
        """The graphs that sessions ran."""
        return [graph for graph, _, _ in self._versions.values()]

    def diagnoses(self, is_broken: bool = False) -> list[Diagnosis]:
        """Return what was found; call it when the program has ended.

        Args:
            is_broken: Whether it ended in NaN or Inf, however few its steps.
        """
        found = [*self._found.values(), *self._captured.found.values()]
        found += [*self._successors.found, *self.derivatives.found, *self.copies.diagnoses()]
        if self.num_steps >= MIN_STEPS:
            found += self._variables()
        if not found and (self.num_steps >= MIN_STEPS or (is_broken and self.num_steps)):
            found += _untouched_normalization(self._gradient_site)
        return found

    def grown(self, trace: TrainingTrace) -> list[Diagnosis]:
        """Find a loss that grew and grew, in a loop that changes its variables by hand.

        Args:
            trace: Its losses.

        Returns:
            The finding, at the line that adds the gradient where there is one.
        """
        last, first = trace.finite_losses[-1:], trace.finite_losses[:1]
        if self._num_applied or len(trace.losses) < MIN_STEPS or not divergence(trace):
            return []
        if self.variables.is_one_input:
            return []  # a picture that is changed until it excites a network, on purpose
        if last[0] < GROWN_FACTOR * first[0] or last[0] < max(trace.losses):
            return []
        added = find_call_below(self._gradient_site, "assign_add")
        how = "gradients are added to the variables, which climbs the loss" if added else (
            "the updates overshoot (the rate is too high), or gradients are added instead of "
            "subtracted"
        )  # fmt: skip
        return [
            Diagnosis(
                symptom="divergence",
                cause=f"The loss grew from {first[0]:.4g} to {last[0]:.4g}: {how}.",
                phase="optimizer",
                confidence=0.94,
                suggestions=(
                    "subtract: variable.assign_sub(rate * gradient)",
                    "divide the rate by 10 until the loss falls",
                ),
            ).at(added or self._gradient_site)
        ]

    def _variables(self) -> list[Diagnosis]:
        if not self._has_trained and self.variables.most_taken < MIN_STEPS:
            return []  # a gradient by something new each time is no training
        if self.variables.have_moved:
            found = self.variables.diagnoses(self._gradient_site)
            return found or alike_units(self.kernels)
        site = self._gradient_site
        if self._num_applied and self._are_gradients_zero():
            return [self._zero_gradients()]
        what = (
            "apply is called, but changes nothing (a learning rate of 0, or gradients that are 0)"
            if self._num_applied
            else "they are never applied: no optimizer is given them (apply_gradients is missing)"
        )
        return [
            Diagnosis(
                symptom="weights-never-change",
                cause=f"Gradients are computed in {self.num_steps} training steps, but the weights "
                f"never change: {what}.",
                phase="optimizer",
                confidence=0.95,
                suggestions=(
                    "optimizer.apply_gradients(zip(gradients, model.trainable_variables))",
                ),
                evidence={"steps": self.num_steps},
            ).at(site)
        ]

    def _are_gradients_zero(self) -> bool:
        """Tell whether the last gradients are 0: as seen, or as a step that moves nothing shows."""
        known = [grad for grad, _ in self._source_of.values() if hasattr(grad, "numpy")]
        if known:
            return all(np.abs(grad.numpy()).max(initial=0.0) <= TINY for grad in known)
        return self.variables.are_applied and self._rate > LEAST_RATE

    def _zero_gradients(self) -> Diagnosis:
        site = self.loss_site
        return Diagnosis(
            symptom="weights-never-change",
            cause=f"The weights never change in {self.num_steps} training steps, because all "
            "gradients are 0 (zero): the loss does not depend on the weights, at least at their "
            "current values (a product with 0, a mean of terms that cancel, a function that is "
            "flat).",
            phase="loss",
            confidence=0.94,
            suggestions=(
                "print the loss and each of its parts, with their shapes",
                "look for flat functions: round, sign, clip_by_value, relu below 0, a comparison",
            ),
            evidence={"steps": self.num_steps},
        ).at(site)

    def _judge_fresh(self, optimizer: Any) -> None:
        counts = [steps for _, steps, _ in self._optimizers.values()]
        sizes = {shapes for _, _, shapes in self._optimizers.values()}
        if max(counts) > 2 or len(sizes) > 1 or not has_state(optimizer):
            return
        site = vars(optimizer).get(SITE) or calling_site()
        self._found["fresh"] = Diagnosis(
            symptom="optimizer-made-anew",
            cause=f"A new optimizer is made at each training step: {len(counts)} "
            f"{type(optimizer).__name__} objects each took one. Its state (momentum, Adam's "
            "averages, the step count of a schedule) starts from scratch every time.",
            phase="optimizer",
            confidence=0.93,
            suggestions=("make the optimizer once, before the loop",),
        ).at(site)


def watch_optimizers(tell: Callable[[Any, Any, Any], None]) -> None:
    """Let every Keras optimizer tell of its steps.

    Args:
        tell: Is given the optimizer, the gradients and the variables.
    """
    import keras

    home = next(kind for kind in keras.optimizers.Optimizer.__mro__ if "apply" in vars(kind))
    apply = home.apply

    @functools.wraps(apply)
    def apply_and_tell(optimizer: Any, grads: Any, trainable_variables: Any = None) -> Any:
        grads = list(grads)
        if trainable_variables is not None:
            trainable_variables = list(trainable_variables)
        with contextlib.suppress(Exception):  # what is measured must not end the user's step
            tell(optimizer, grads, trainable_variables)
        return apply(optimizer, grads, trainable_variables)

    home.apply = apply_and_tell


def tracing_site() -> CallSite | None:
    """Return the user's line that runs, also where AutoGraph runs its own version of it."""
    for frame in reversed(private("extract_stack")()):
        if is_users(frame.filename):
            return CallSite(frame.filename, frame.lineno)
    return calling_site()


def _wrong_variable(source: Any, variable: Any) -> Diagnosis:
    site = calling_site()
    names = [name_of(source), name_of(variable)]
    return Diagnosis(
        symptom="wrong-variables",
        cause=f"The gradient of variable {names[0]!r} is applied to variable {names[1]!r}: "
        "gradients and variables are paired wrongly.",
        phase="optimizer",
        confidence=0.95,
        suggestions=(
            "zip the gradients with the same list of variables that was given to tape.gradient",
        ),
    ).at(site)


def _growing_graph(size: int, site: CallSite | None) -> Diagnosis:
    return Diagnosis(
        symptom="graph-grows",
        cause=f"The TF1 graph grows from one session run to the next (to {size} ops by "
        "now): ops are made inside the loop, which gets slower and takes more memory each time.",
        phase="runtime",
        confidence=0.93,
        suggestions=(
            "build all ops before the loop and only run them in it",
            "to find the line, call tf.compat.v1.get_default_graph().finalize() before the loop: "
            "adding an op then raises",
        ),
    ).at(site)


def _untouched_normalization(gradient_site: CallSite | None) -> list[Diagnosis]:
    """Find BatchNormalization that was trained without ever seeing ``training=True``.

    Args:
        gradient_site: Where the loop asks for gradients.
    """
    keras = sys.modules.get("keras")
    if keras is None:
        return []
    for layer in [one for one in gc.get_objects()
                  if type(one) is keras.layers.BatchNormalization]:  # fmt: skip
        if not layer.built or not layer.trainable or layer.moving_mean.numpy().any():
            continue
        scales = [part.numpy() for part in (layer.gamma, layer.beta) if part is not None]
        is_trained = any((values != start).any() for values, start in zip(scales, (1, 0)))  # noqa: B905
        if not is_trained or not (layer.moving_variance.numpy() == 1.0).all():
            continue
        site = called_in_inference(gradient_site) or vars(layer).get(SITE)
        return [
            Diagnosis(
                symptom="batchnorm-mode",
                cause=f"BatchNormalization {layer.path!r} was trained, but its moving mean and "
                "variance are still the initial 0 and 1: the model is called without "
                "training=True in the loop, so it never normalises by the batch.",
                layer=str(layer.path),
                phase="model",
                confidence=0.92,
                suggestions=("call model(x, training=True) in the training step",),
            ).at(site)
        ]
    return []
