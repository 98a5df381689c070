"""Symptom rules as a Keras callback: ``model.fit(..., callbacks=[SymptomRules()])``.

The callback measures (loss of each step, norms at sampled steps, a look at the activations now
and then, waiting times, retraces, memory); the rules judge. At the default setting it costs at
most 5 % of a step (``benchmarks/debug_overhead.py``).
"""

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import keras
import numpy as np

from headstart.debug.callsites import CallSite, calling_site, find_call
from headstart.debug.diagnosis import Diagnosis, ranked
from headstart.debug.guard import harmless
from headstart.debug.preflight.objectives import objective_of
from headstart.debug.replay.taps import tap, untap
from headstart.debug.symptoms import classes as rules_classes
from headstart.debug.symptoms import gradient_probe
from headstart.debug.symptoms import loss as rules_loss
from headstart.debug.symptoms import machine as rules_machine
from headstart.debug.symptoms import network as rules_network
from headstart.debug.symptoms.activity_probe import count, probe
from headstart.debug.symptoms.batches import Batches
from headstart.debug.symptoms.retraces import RetraceCounter, explain_retraces
from headstart.debug.symptoms.trace import TrainingTrace

SAMPLE_EVERY = 20
"""Steps from one measurement of gradients, updates, labels and memory to the next."""
PROBE_EVERY = 200
"""Least steps from one look at the activations to the next; one more comes at the end."""
MAX_KEPT_BATCHES = 4
"""Batches held for a look at the activations; small ones are put together."""
MAX_COUNTED_STEPS = 20
"""First steps whose labels are all counted; later only those of sampled steps."""
TRAIN_STEP = "one_step_on_data"
"""Keras's name for the tf.function of one training step."""

Rule = Callable[[TrainingTrace], list[Diagnosis]]
RULES: tuple[Rule, ...] = (
    rules_loss.divergence,
    rules_loss.falls_without_end,
    rules_loss.oscillation,
    rules_loss.overfitting,
    rules_loss.loss_not_falling,
    rules_network.exploding_gradients,
    rules_network.vanishing_gradients,
    rules_network.dead_units,
    rules_network.saturated_units,
    rules_network.learning_rate,
    rules_network.half_precision,
    rules_classes.not_shuffled,
    rules_classes.class_collapse,
    rules_classes.accuracy_at_chance,
    rules_network.unscaled_input,
    rules_network.missing_gradients,
    rules_machine.starved_for_data,
    rules_machine.retrace_storm,
    rules_machine.memory_growth,
)
MIN_CONFIDENCE = 0.5
"""Less sure findings are no reason to call a run unhealthy."""
ADVICE = ("oscillation", "overfitting", "loss-not-falling")
"""Symptoms that short healthy runs show as well: told beside other findings, never alone."""
_OPTIMIZER_SYMPTOMS = ("learning-rate-too-high", "learning-rate-too-low", "divergence",
                      "float16-overflow")  # fmt: skip

_log = logging.getLogger("headstart.debug")


def find_symptoms(trace: TrainingTrace) -> list[Diagnosis]:
    """Apply every rule to the record of a run.

    Returns:
        The findings, most likely first; empty for a healthy run.
    """
    return ranked(found for rule in RULES for found in rule(trace))


def worth_telling(found: Sequence[Diagnosis]) -> list[Diagnosis]:
    """Return the findings of one training with which to bother a person who did not ask.

    Args:
        found: What the rules found.

    Returns:
        Those that are sure enough, unless none of them is more than advice.
    """
    sure = [diagnosis for diagnosis in found if diagnosis.confidence >= MIN_CONFIDENCE]
    return sure if any(diagnosis.symptom not in ADVICE for diagnosis in sure) else []


class SymptomRules(keras.callbacks.Callback):  # type: ignore[misc]
    """Watches a training run and says what is wrong with it.

    New findings are logged as warnings after each epoch; ``diagnoses`` has those that hold now,
    also where training was cut short by an exception.

    Args:
        every: Steps from one sampled step to the next.
        logs: Whether findings are logged as they come up.
        keeps_batches: Whether the last batches stay in ``batches`` after the training.

    Example:
        >>> rules = SymptomRules()
        >>> model.fit(x, y, callbacks=[rules])
        >>> rules.diagnoses
    """

    needs_every_batch = False

    def __init__(
        self, every: int = SAMPLE_EVERY, logs: bool = True, keeps_batches: bool = False
    ) -> None:
        super().__init__()
        self.keeps_batches = keeps_batches
        self.fed = Batches()
        self.every = every
        self.logs = logs
        self.trace = TrainingTrace()
        self._retraces = RetraceCounter()
        self._probe: gradient_probe.GradientProbe | None = None
        self._site: CallSite | None = None
        self._batches: deque[Any] = deque(maxlen=MAX_KEPT_BATCHES)
        self._due = False
        self._num_batches = 0
        self._wait_s: float | None = None
        self._iteration = 0
        self._last_probe = 0
        self._said: set[str] = set()
        self._curve = _StepLosses()
        self._earlier: list[Diagnosis] = []

    @property
    def diagnoses(self) -> list[Diagnosis]:
        """The findings that hold now, most likely first, of every ``fit`` it was given to."""
        now: list[Diagnosis] = []
        with self._harmless():
            now += (self._located(found) for found in find_symptoms(self.trace))
        return ranked([*self._earlier, *now])

    @property
    def batches(self) -> list[Any]:
        """The last batches seen, as the data set yielded them."""
        return list(self._batches)

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Start a record and tap the training loop."""
        with self._harmless():
            self._earlier = self.diagnoses
            self._site = calling_site()
            self._objective = objective_of(self.model)
            optimizer = self.model.optimizer  # None where it was compiled without
            resumed = optimizer is not None and int(np.asarray(optimizer.iterations)) > 0
            self.trace = TrainingTrace(is_resumed=resumed)
            self.fed = Batches()
            self._last_probe = self._num_batches = 0
            self._wait_s = None
            self._curve = _StepLosses()
            self._probe = gradient_probe.installed(self.model)
            if self._probe is None and not resumed and optimizer is not None:
                self._probe = gradient_probe.install(self.model, self.every)
            self._iteration = self._probe.iteration() if self._probe is not None else 0
            self._retraces = RetraceCounter()
            self._retraces.__enter__()
            tap(self.model, self)

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Take a last look, leave the model as it was and say what is wrong."""
        with self._harmless():
            self._stop()
            self._look()
            self.trace.has_finished = True
            self._say()
            if not self.keeps_batches:
                self._batches.clear()

    def on_batch(self, batch: Any, wait_s: float) -> None:
        """Note a batch before its step (called by the tap)."""
        with self._harmless():
            if self._wait_s is None:  # first batch of a call, which may take several
                self._start = time.perf_counter() - wait_s
                self._wait_s = 0.0
            elif self._due and self._probe is not None:
                self._read_sample(self._probe)
            self._wait_s += wait_s
            self._batches.append(batch)
            if self.keeps_batches:
                self._note_batch(batch)
            is_sampled = self._probe is not None and self._probe.is_sampled(self._iteration)
            self._due = self._due or bool(is_sampled)
            self._iteration += 1  # counted here: reading the variable takes longer than all else
            self._num_batches += 1
            if is_sampled and self._probe is not None:
                self._probe.remember_weights()
            if is_sampled or self._num_batches <= MAX_COUNTED_STEPS:
                self._count_labels(batch)

    def on_step_error(self, error: BaseException) -> None:
        """Let go of the model: Keras calls no ``on_train_end`` after an exception."""
        with self._harmless():
            self._stop()

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Note where an epoch starts."""
        self.trace.epoch_starts.append(len(self.trace.losses))
        self._curve.start_epoch()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Note the step's loss, and everything else where the step is a sampled one."""
        with self._harmless():
            if logs and "loss" in logs:
                self.trace.losses.append(
                    self._curve.loss_of(self.model, float(np.mean(logs["loss"])))
                )
            if self._wait_s is not None:
                self.trace.waits_s.append(self._wait_s)
                self.trace.step_times_s.append(time.perf_counter() - self._start)
            elif self._probe is not None:  # steps that Keras ran together, unseen
                before, self._iteration = self._iteration, self._probe.iteration()
                self._num_batches += self._iteration - before
            self._wait_s = None
            if self._due and self._probe is not None:
                self._read_sample(self._probe)
                self._due = False
                self._iteration = self._probe.iteration()  # loss scaling may leave steps out
            call = len(self.trace.losses) - 1
            if call % self.every == 0:
                self.trace.memory.append((call, rules_machine.resident_bytes()))

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Keep the epoch's logs, look at the activations and log new findings."""
        with self._harmless():
            values = {name: float(np.mean(value)) for name, value in (logs or {}).items()}
            self.trace.epochs.append(values)
            if len(self.trace.losses) - self._last_probe >= PROBE_EVERY:
                self._look()
            traces = self._retraces.of(TRAIN_STEP)
            self.trace.num_retraces = len({trace.arguments for trace in traces} or {()}) - 1
            self.trace.retrace_causes = explain_retraces(traces)
            if self.logs and _is_power_of_two(len(self.trace.epochs)):  # judging takes all of it
                self._say()

    def _read_sample(self, probe: gradient_probe.GradientProbe) -> None:
        """Read what the sampled step did, where it has been taken."""
        if probe.is_ready and self._iteration == probe.iteration():
            self._due = False
            rate = float(np.asarray(self.model.optimizer.learning_rate))
            self.trace.has_half_weights = any(v.dtype == "float16" for v in probe.variables)
            self.trace.samples.append(probe.read(max(0, self._num_batches - 1), rate))

    @staticmethod
    def _harmless() -> AbstractContextManager[None]:
        return harmless("the symptom rules")

    def _stop(self) -> None:
        untap(self.model, self)
        self._retraces.__exit__(None, None, None)

    def _look(self) -> None:
        self._last_probe = len(self.trace.losses)
        if not self._batches:
            return
        seen = probe(self.model, list(self._batches), self._last_probe, self._objective)
        if seen is not None:
            self.trace.probes.append(seen)
            self.trace.num_classes = seen.num_classes

    def _note_batch(self, batch: Any) -> None:
        with harmless("the rules about batches"):
            x, y, _ = keras.utils.unpack_x_y_sample_weight(batch)
            self.fed.on_step(x, y, self._site)

    def _count_labels(self, batch: Any) -> None:
        _, y, weights = keras.utils.unpack_x_y_sample_weight(batch)
        self.trace.is_weighted = self.trace.is_weighted or weights is not None
        if not self._objective.is_classification or not hasattr(y, "shape"):
            return
        labels = self._objective.labels(np.asarray(y))
        if len(labels) == len(y):  # one a row
            self.trace.num_pairs += max(0, len(labels) - 1)
            self.trace.num_equal_pairs += int((labels[1:] == labels[:-1]).sum())
        for label, rows in count(labels).items():
            self.trace.label_counts[label] = self.trace.label_counts.get(label, 0) + rows

    def _say(self) -> None:
        for found in self.diagnoses:
            if found.symptom not in self._said:
                self._said.add(found.symptom)
                level = logging.WARNING if self.logs else logging.DEBUG
                _log.log(level, "%s: %s", found.symptom, found.cause)

    def _located(self, found: Diagnosis) -> Diagnosis:
        """Point a finding at the line of the user's that can mend it."""
        if found.file is not None or self._site is None:
            return found
        wanted = ["fit"]
        if found.symptom in _OPTIMIZER_SYMPTOMS:
            optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
            wanted = [type(optimizer).__name__, "compile", "fit"]
        return found.at(find_call(self._site, *wanted) or self._site)


def _is_power_of_two(number: int) -> bool:
    return number & (number - 1) == 0


class _StepLosses:
    """Turns the running mean that Keras logs into the loss of each step."""

    def __init__(self) -> None:
        self._mean = 0.0
        self._steps = 0
        self._is_mean: bool | None = None

    def start_epoch(self) -> None:
        self._mean, self._steps = 0.0, 0

    def loss_of(self, model: Any, logged: float) -> float:
        if self._is_mean is None:  # own train steps may log the step's loss as it is
            self._is_mean = any(
                metric.name == "loss" and _count_of(metric) > 0.0 for metric in model.metrics
            )
        if not self._is_mean:
            return logged
        self._steps += 1
        loss = logged * self._steps - self._mean * (self._steps - 1)
        self._mean = logged
        return loss if math.isfinite(logged) else logged


def _count_of(metric: Any) -> float:
    return float(np.asarray(getattr(metric, "count", 0.0)))
