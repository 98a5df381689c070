"""Norms of gradients and updates at sampled steps, at almost no cost.

The norms are computed inside the user's own train step: the optimizer's ``apply`` is wrapped
before the step is traced, and writes them to a small variable when ``iterations`` is a multiple
of the sampling interval. Nothing is computed twice and nothing changes what is trained.
"""

from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import tensorflow as tf

from headstart.debug.guard import harmless
from headstart.debug.symptoms.trace import StepSample

_NUM_STATS = 3
_NO_GRADIENT = -1.0
_probes: WeakKeyDictionary[Any, "GradientProbe"] = WeakKeyDictionary()


CLOSE_STEPS = 1000
"""Steps of a training at which it is looked at closely: what goes wrong most often does so early,
and with short steps a sample costs as much as two of them."""
RARER = 5


class GradientProbe:
    """Measures the gradients that reach an optimizer.

    Args:
        optimizer: The optimizer of a compiled model whose train step has not been traced yet.
        every: Sample step 0, step 1 and the steps whose number is a multiple of this; after
            `CLOSE_STEPS` only every `RARER`-th of these.
    """

    def __init__(self, optimizer: Any, every: int) -> None:
        self.every = every
        self.variables: list[Any] = []
        self._stats: Any = None
        self._is_traced = False
        self._before: list[Any] = []
        # A loss-scaling optimizer hands unscaled gradients to the one it wraps.
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        # The property of that name divides by the steps of gradient accumulation.
        self._iterations = inner._iterations
        self._accumulates = bool(inner.gradient_accumulation_steps)
        self._apply = inner.apply
        inner.apply = self._measured_apply

    @property
    def is_ready(self) -> bool:
        """True once the train step was traced, and so there is something to read."""
        return self._is_traced

    def iteration(self) -> int:
        """Return the number of the step about to be taken, as the optimizer counts."""
        return int(self._iterations.value)

    def is_sampled(self, iteration: Any) -> Any:
        """Tell whether the step with a number is measured.

        Args:
            iteration: The number, as an integer or a tensor.

        Returns:
            A boolean, or a boolean tensor.
        """
        is_close = iteration < CLOSE_STEPS
        is_due = is_close | (iteration % (RARER * self.every) == 0)
        return (is_due & (iteration % self.every == 0)) | (iteration == 1)

    def prepare(self, variables: list[Any]) -> None:
        """Make room for the norms.

        Best before the first trace: one that makes variables is taken a second time.

        Args:
            variables: Those that the optimizer will be handed gradients of.
        """
        if list(map(id, variables)) == list(map(id, self.variables)):
            return
        self.variables = variables
        with tf.init_scope():
            shape = [len(variables), _NUM_STATS]
            self._stats = tf.Variable(tf.fill(shape, _NO_GRADIENT), name="headstart_gradient_norms")

    def remember_weights(self) -> None:
        """Keep the weights as they are before a sampled step.

        Only references are taken; TensorFlow copies a variable when the step writes to it. Before
        the first trace there may be no variables yet.
        """
        self._before = [variable.value.read_value() for variable in self.variables]

    def read(self, step: int, learning_rate: float) -> StepSample:
        """Return what the sampled step just taken did.

        Args:
            step: Number of the step, from 0.
            learning_rate: Rate that the optimizer used.

        Returns:
            The sample; where the weights were not remembered, update ratios are their least
            possible values, from the norms before and after.
        """
        stats = self._stats.numpy()
        after = [variable.value for variable in self.variables]
        if self._before:
            ratios = _update_ratios(self._before, after).numpy()
        else:
            ratios = _least_update_ratios(stats[:, 2], after).numpy()
        self._before = []
        if self._accumulates:  # most steps change nothing and one changes all
            ratios = np.full(len(after), np.nan)
        return StepSample(
            step=step,
            names=tuple(str(variable.path) for variable in self.variables),
            has_gradient=tuple(map(bool, stats[:, 0] != _NO_GRADIENT)),
            gradient_norms=tuple(map(float, stats[:, 0])),
            gradient_means=tuple(map(float, stats[:, 1])),
            weight_norms=tuple(map(float, stats[:, 2])),
            update_ratios=tuple(map(float, ratios)),
            is_kernel=tuple(len(variable.shape) >= 2 for variable in self.variables),
            learning_rate=learning_rate,
        )

    def _measured_apply(self, grads: Any, trainable_variables: Any = None) -> Any:
        grads = list(grads)
        with harmless("the gradient probe"):
            self._measure(grads, list(trainable_variables or self.variables))
        return self._apply(grads, trainable_variables)

    def _measure(self, grads: list[Any], variables: list[Any]) -> None:
        if tf.distribute.has_strategy():  # each replica has its own share of a gradient
            return
        if not self._is_traced and variables:
            self.prepare(variables)
            self._is_traced = True
        place = {id(variable): i for i, variable in enumerate(self.variables)}
        known = [
            (place[id(variable)], gradient, variable)
            for gradient, variable in zip(grads, variables, strict=False)
            if gradient is not None and id(variable) in place
        ]
        if known:
            with tf.name_scope("headstart_gradient_probe"):
                due = self.is_sampled(self._iterations.value)
                tf.cond(due, lambda: self._write(known), lambda: tf.constant(False))

    def _write(self, known: list[tuple[int, Any, Any]]) -> Any:
        rows = tf.stack([_stats_of(gradient, variable) for _, gradient, variable in known])
        places = tf.constant([[place] for place, _, _ in known])
        missing = tf.fill([len(self.variables), _NUM_STATS], _NO_GRADIENT)
        self._stats.assign(tf.tensor_scatter_nd_update(missing, places, rows))
        return tf.constant(True)


def install(model: Any, every: int) -> GradientProbe:
    """Wrap the ``apply`` of a model's optimizer, once.

    Args:
        model: A compiled Keras model whose train step has not been traced yet.
        every: Sampling interval in steps; an existing probe keeps its own.

    Returns:
        The optimizer's probe.
    """
    probe = _probes.get(model.optimizer)
    if probe is None:
        probe = GradientProbe(model.optimizer, every)
        _probes[model.optimizer] = probe
        if model.built:
            probe.prepare(list(model.trainable_variables))
    return probe


def installed(model: Any) -> GradientProbe | None:
    """Return the probe of a model's optimizer where one was installed before its trace."""
    return None if model.optimizer is None else _probes.get(model.optimizer)


def _stats_of(gradient: Any, variable: Any) -> Any:
    values = gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient
    values = tf.cast(values, tf.float32)
    weights = tf.cast(variable.value, tf.float32)
    # The mean is over the variable: sparse gradients (embeddings) leave most of it untouched.
    mean = tf.reduce_sum(tf.abs(values)) / tf.cast(tf.size(weights), tf.float32)
    return tf.stack([tf.norm(values), mean, tf.norm(weights)])


@tf.function  # type: ignore[untyped-decorator]
def _update_ratios(before: list[Any], after: list[Any]) -> Any:
    return tf.stack(
        [
            tf.norm(tf.cast(new, tf.float32) - tf.cast(old, tf.float32))
            / tf.maximum(tf.norm(tf.cast(old, tf.float32)), 1e-12)
            for old, new in zip(before, after, strict=True)
        ]
    )


@tf.function  # type: ignore[untyped-decorator]
def _least_update_ratios(norms_before: Any, after: list[Any]) -> Any:
    norms = tf.stack([tf.norm(tf.cast(new, tf.float32)) for new in after])
    return tf.abs(norms - norms_before) / tf.maximum(norms_before, 1e-12)
