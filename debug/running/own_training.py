"""Training loops that people write themselves, judged by the rules that judge a ``fit``.

What a loop trains is seen where it calls its model, its loss and its optimizer: that gives the
last batch, the loss object and the settings, which is all that the rules need. What cannot be seen
(a loss of plain ops, inputs that are prepared inside the step) leaves out the rules that need it.
"""

import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from headstart.debug.callsites import CallSite, calling_site
from headstart.debug.diagnosis import Diagnosis, Severity
from headstart.debug.dump.origins import SITE
from headstart.debug.guard import harmless
from headstart.debug.preflight.fit_data import judge_fit
from headstart.debug.preflight.objectives import OWN_LOSS, OWN_OPTIMIZER, optimizer_of
from headstart.debug.preflight.placing import at_layer, located
from headstart.debug.preflight.precision import loss_without_scale
from headstart.debug.preflight.training import nothing_to_train
from headstart.debug.preflight.untracked import nothing_tracked
from headstart.debug.running.fits import number_of
from headstart.debug.running.histories import History
from headstart.debug.source.rates import line_that_sets_rate
from headstart.debug.symptoms.batches import Batches, by_outcome
from headstart.debug.symptoms.loss import HUGE_LOSS, divergence, loss_not_falling
from headstart.debug.symptoms.rising_rate import rising_rate
from headstart.debug.symptoms.swapped import finding as swapped_finding
from headstart.debug.symptoms.trace import TrainingTrace
from headstart.debug.symptoms.variables import storage_of

MAX_CALLS = 32
"""Latest calls of models that are remembered."""
MAX_HELD = 8
"""... and of these, whose inputs are held."""
RATE_EVERY = 20
"""Steps from one look at the learning rate to the next."""
MAX_RATES = 2_000
"""Rates that are kept, evenly spread."""
MAX_MODELS = 4
"""Latest models that are judged."""
MIN_STEPS = 30
"""Steps of a loop before it is judged."""
MIN_FROZEN = 10
"""Steps of a model of which nothing is trainable."""
MIN_ROWS = 16
"""Rows of its last batch."""
MAX_SHAPES = 32
"""Models whose shapes are kept."""
NUM_ENDS = 5
"""Batches at each end whose targets are compared."""
GROWN = 1.7
"""Growth of targets whose squares explain a loss that is three times as large."""
UNSURE = ("undertrained", "no-better-than-constant", "loss-not-falling", "class-imbalance")
"""What one batch cannot settle: advice."""


@dataclass
class Seen:
    """What is known of one model that a loop trains.

    Args:
        model: A Keras model.
        x: Last batch of inputs.
        y: Last batch of targets; None where not known.
        places: In a traced step: places of input and targets among the arguments.
        function: Identity of that step.
        changed: Identities of what holds the variables that an optimizer was given.
        applied_at: The user's line that gave them.
        batches: What is known of its batches.
        weights: What ``train_on_batch`` was given beside the last batch, by name.
        num_frozen: Calls of ``train_on_batch`` while no variable was trainable.
        num_trainable: ... and while some were.
        optimizer: What changes its variables.
        rates: The learning rate at some steps.
        num_steps: Steps that were seen.
        num_answers: Predictions that the loop asked of it.
        first_sizes: How large the targets of the first batches are, on average.
        last_sizes: ... and those of the last.
    """

    model: Any
    x: Any = None
    y: Any = None
    places: tuple[int, int] | None = None
    function: int | None = None
    changed: set[int] = field(default_factory=set)
    applied_at: CallSite | None = None
    batches: Batches = field(default_factory=Batches)
    weights: dict[str, Any] = field(default_factory=dict)
    num_frozen: int = 0
    num_trainable: int = 0
    optimizer: Any = None
    rates: History = field(default_factory=lambda: History(MAX_RATES, num_latest=1))
    num_steps: int = 0
    num_answers: int = 0
    first_sizes: list[float] = field(default_factory=list)
    last_sizes: deque[float] = field(default_factory=lambda: deque(maxlen=NUM_ENDS))

    def note_rate(self) -> None:
        """Note the learning rate, once every few steps; a trace has none."""
        import tensorflow as tf

        if self.optimizer is None or not tf.executing_eagerly():
            return
        if self.num_steps % RATE_EVERY == 0:
            self.rates.append(float(np.asarray(self.optimizer.learning_rate)))
        self.num_steps += 1

    def keep(self, x: Any, y: Any) -> None:
        """Keep a batch, unless it is a short last one.

        Args:
            x: Batch of inputs.
            y: The targets; None where they are not known (yet).
        """
        if x is self.x:
            self.y = self.y if y is None else y
        elif len(x) >= MIN_ROWS:
            self.x, self.y = x, y
        self._note_size(y)

    def _note_size(self, y: Any) -> None:
        """Note how large the targets are: those that a network makes itself may grow."""
        if y is None or isinstance(y, dict | list | tuple):
            return
        some = np.asarray(y[:64])
        if some.dtype.kind == "f" and some.size:
            sizes = self.first_sizes if len(self.first_sizes) < NUM_ENDS else self.last_sizes
            sizes.append(float(np.abs(some).mean()))

    @property
    def has_growing_targets(self) -> bool:
        """Whether its last targets are a good deal larger than its first."""
        if len(self.last_sizes) < NUM_ENDS:
            return False
        return bool(np.median(self.last_sizes) > GROWN * np.median(self.first_sizes))


Ref = Callable[[], Any]


def _ref(value: Any) -> Ref:
    """Hold a tensor weakly: outputs of large pictures fill the memory. What cannot be, is not."""
    try:
        return weakref.ref(value)
    except TypeError:  # a list, a dictionary
        return lambda: None


class OwnTraining:
    """What is known of the loops of one program."""

    def __init__(self) -> None:
        self.optimizer_site: CallSite | None = None
        self._calls: deque[tuple[Any, Ref, Ref]] = deque(maxlen=MAX_CALLS)
        self._last_inputs: deque[Any] = deque(maxlen=MAX_HELD)
        self._seen: dict[int, Seen] = {}
        self._swapped: Diagnosis | None = None
        self._shapes: dict[int, tuple[Any, ...]] = {}

    def on_call(self, model: Any, x: Any, output: Any) -> None:
        """Note a call of a model; all but the last inputs go when the program lets go of them."""
        self._calls.append((model, _ref(x), _ref(output)))
        self._last_inputs.append(x)
        self._note_shapes(model)

    def on_predict(self, model: Any) -> None:
        """Note a ``predict``."""
        self._note_shapes(model)
        seen = self._seen.get(number_of(model))
        if seen is not None:
            seen.num_answers += 1

    def _note_shapes(self, model: Any) -> None:
        number = number_of(model)
        if not self._shapes.get(number) and len(self._shapes) < MAX_SHAPES:
            self._shapes[number] = tuple(tuple(weight.shape) for weight in model.weights)

    def _moves_its_targets(self, seen: Seen, num_steps: int) -> bool:
        """Tell whether what a loop trains towards is made by the model, and grows as it learns.

        So in Q-learning: targets come from an earlier copy of the model, or from the model itself.
        """
        number = number_of(seen.model)
        own = self._shapes.get(number) or tuple(tuple(one.shape) for one in seen.model.weights)
        has_copy = any(shapes == own for other, shapes in self._shapes.items() if other != number)
        asks_itself = seen.num_answers >= max(MIN_STEPS, num_steps / 4)
        return has_copy or asks_itself or seen.has_growing_targets

    def on_loss(self, loss: Any, y: Any, y_pred: Any) -> None:
        """Note a call of one of Keras's losses."""
        made = [(model, x()) for model, x, output in self._calls if output() is y_pred]
        if not made:
            is_given_as_labels = any(output() is y for _, _, output in self._calls)
            if is_given_as_labels and self._swapped is None and _are_labels(loss, y_pred):
                site = calling_site()
                self._swapped = None if site is None else swapped_finding(site)
            return
        model, x = made[-1]
        vars(model).setdefault(OWN_LOSS, loss)
        seen = self._seen_of(model)
        if _is_at_hand(x) and not _is_symbolic(y):
            seen.keep(x, y)
        else:
            seen.places = (_place(x), _place(y))

    def on_apply(
        self, optimizer: Any, variables: Sequence[Any], applied_at: CallSite | None = None
    ) -> None:
        """Note a step of an optimizer.

        Args:
            optimizer: A Keras optimizer.
            variables: Variables that it changes.
            applied_at: The user's line that calls it.
        """
        self.optimizer_site = vars(optimizer).get(SITE) or self.optimizer_site
        if not variables:
            return
        for model, input_of, _ in reversed(self._calls):
            x = input_of()
            if any(variable is variables[0] for variable in model.trainable_variables):
                vars(model)[OWN_OPTIMIZER] = optimizer
                seen = self._seen_of(model)
                seen.applied_at = seen.applied_at or applied_at
                seen.changed |= {id(storage_of(variable)) for variable in variables}
                seen.optimizer = optimizer
                seen.note_rate()
                if _is_at_hand(x):
                    seen.keep(x, None)
                    seen.batches.on_step(x, seen.y if x is seen.x else None, applied_at)
                elif seen.places is None:
                    seen.places = (_place(x), -1)
                return

    def on_function(self, function: Any, args: Any) -> None:
        """Note a finished call of a traced step."""
        import tensorflow as tf

        flat: list[Any] | None = None
        for seen in self._seen.values():
            if seen.places is None or seen.function not in (None, id(function)):
                continue
            seen.function = id(function)
            if flat is None:
                flat = [part for part in tf.nest.flatten(args) if hasattr(part, "shape")]
            x, y = (flat[place] if 0 <= place < len(flat) else None for place in seen.places)
            if x is not None:
                seen.keep(x, y)
                seen.batches.on_step(x, y, calling_site())
                seen.note_rate()

    def on_batch(self, model: Any, x: Any, y: Any, **weights: Any) -> None:
        """Note a ``train_on_batch``."""
        seen = self._seen_of(model)
        if model.trainable_variables:
            seen.num_trainable += 1
        else:
            seen.num_frozen += 1
        seen.optimizer = optimizer_of(model)
        seen.note_rate()
        seen.keep(x, y)
        if seen.x is x:
            seen.weights = weights
        seen.batches.on_step(x, y, calling_site())

    def nothing_tracked(self) -> list[Diagnosis]:
        """Say of the models that were called last why they have no variable to train."""
        return [
            found
            for model in {id(model): model for model, _, _ in self._calls}.values()
            if not model.trainable_variables
            for found in nothing_tracked(model)
        ]

    @property
    def sites(self) -> list[CallSite]:
        """The user's lines that train."""
        return [one.batches.site for one in self._seen.values() if one.batches.site is not None]

    def _seen_of(self, model: Any) -> Seen:
        """Return what is known of a model. The program's own name for it ends with the program."""
        number = number_of(model)
        if number not in self._seen and len(self._seen) >= MAX_MODELS:  # a search lets go of its
            del self._seen[next(iter(self._seen))]
        return self._seen.setdefault(number, Seen(model))

    def diagnoses(
        self, histories: dict[str, list[float]], fitted: set[int], is_broken: bool
    ) -> list[Diagnosis]:
        """Judge the loops; call it when the program has ended.

        Args:
            histories: Losses by the name of what gave them.
            fitted: Numbers of the models that ``fit`` trained: they are judged there.
            is_broken: Whether the program ended in NaN or Inf.

        Returns:
            The findings.
        """
        seen = [one for number, one in self._seen.items() if number not in fitted]
        losses = losses_of(histories) if len(seen) == 1 else []
        found = [] if self._swapped is None else [self._swapped]
        for one in seen:
            with harmless("the rules about own training loops"):
                moves = self._moves_its_targets(one, len(losses))
                found += _judged(one, losses, is_broken, moves)
        return found


def _judged(
    seen: Seen, losses: list[float], is_broken: bool, has_moving_targets: bool
) -> list[Diagnosis]:
    if seen.num_frozen >= MIN_FROZEN and not seen.num_trainable:
        frozen = nothing_to_train(seen.model)
        return [located(one, seen.model, seen.batches.site) for one in frozen]
    if seen.x is None or len(seen.x) < MIN_ROWS:
        return []
    if len(losses) < MIN_STEPS and not is_broken:
        return []
    trace = TrainingTrace(losses=losses)
    curve, grown = [*divergence(trace), *loss_not_falling(trace)], []
    if has_moving_targets and not is_broken and max(losses[-NUM_ENDS:]) < HUGE_LOSS:
        grown = [_expected(one) for one in curve if one.symptom == "divergence"]
        curve = [one for one in curve if one.symptom != "divergence"]
    x, y = (None if part is None else np.asarray(part) for part in (seen.x, seen.y))
    judged = judge_fit(seen.model, seen.weights, trace, [(x, y)], curve, is_broken)
    goes_badly = judged.level in ("nothing", "little") or bool(curve)
    severity: Severity = "error" if goes_badly else "advice"
    judged.found.extend(
        replace(one, severity=severity).at(seen.applied_at)
        for one in loss_without_scale(seen.model)
    )
    site = seen.applied_at or seen.batches.site
    setter = line_that_sets_rate(site.file) if site is not None else None
    set_at = CallSite(site.file, setter) if site is not None and setter else site
    rising = rising_rate(seen.rates.values, losses, set_at)
    told = (
        grown
        + rising
        + _left_out(seen, goes_badly)
        + by_outcome(seen.batches.diagnoses(), judged.level)
    )
    placed = [
        one.at(seen.batches.site) if one.evidence.get("at") == "weights" else one
        for one in judged.found
    ]
    return told + [
        replace(one, severity="advice") if one.symptom in UNSURE else one
        for one in (at_layer(found, seen.model) for found in placed)
        if not (is_broken and one.symptom == "divergence")  # the watch tells it itself
    ]


def _expected(grown: Diagnosis) -> Diagnosis:
    return replace(
        grown,
        severity="advice",
        cause=f"{grown.cause} But the targets come from a model that learns (Q-learning): they "
        "grow as it does, and the loss with them. Compare returns instead.",
    )


def _left_out(seen: Seen, goes_badly: bool) -> list[Diagnosis]:
    """Find layers that are trainable and still as they were made: no optimizer was given them.

    A layer that was trained elsewhere, or loaded, has biases; those of a new one are 0.
    """
    left = [
        layer
        for layer in seen.model._flatten_layers(include_self=False)
        if layer.trainable and getattr(layer, "bias", None) is not None
        if id(storage_of(layer.kernel)) not in seen.changed and not layer.bias.numpy().any()
    ]
    if not left or not seen.changed:
        return []
    names = ", ".join(str(layer.path) for layer in left[:3])
    site = seen.applied_at
    return [
        Diagnosis(
            symptom="variables-left-out",
            cause=f"{len(left)} trainable layers ({names}) still have their random initial "
            "weights: the optimizer is given only some of the model's variables, so these "
            "are never updated.",
            phase="optimizer",
            severity="error" if goes_badly else "advice",
            confidence=0.9,
            suggestions=(
                "take gradients of model.trainable_variables and apply them all",
                "if these layers are meant to stay fixed: layer.trainable = False",
            ),
        ).at(site)
    ]


def losses_of(histories: dict[str, list[float]]) -> list[float]:
    """Return the losses of a loop: those differentiated, else those of the busiest function.

    Args:
        histories: Losses by the name of what gave them.
    """
    if "loss" in histories:
        return histories["loss"]
    firsts = [history for name, history in histories.items() if "[" not in name or "[0]" in name]
    return max(firsts, key=len, default=[])


def _are_labels(loss: Any, values: Any) -> bool:
    """Tell whether a cross-entropy is given labels of 0 and 1 (eagerly) for predictions."""
    if "crossentropy" not in type(loss).__name__.lower() or not _is_at_hand(values):
        return False
    return bool(np.isin(np.asarray(values), (0, 1)).all())


def _is_at_hand(value: Any) -> bool:
    return hasattr(value, "numpy") or isinstance(value, np.ndarray)


def _is_symbolic(value: Any) -> bool:
    return hasattr(value, "graph") and not hasattr(value, "numpy")


def _place(value: Any) -> int:
    """Return the place of a symbolic tensor among its function's arguments; -1 for another."""
    inputs = getattr(getattr(value, "graph", None), "inputs", ())
    return next((place for place, one in enumerate(inputs) if one is value), -1)


def watch_models(training: OwnTraining, is_in_keras: Any) -> None:
    """Let every Keras model and loss tell of its calls, but of those that Keras's own loops make.

    Args:
        training: Told of each call.
        is_in_keras: Returns whether one of Keras's loops is running.
    """
    import keras

    def told(kind: Any, tell: Any, named: tuple[str, ...], num_needed: int) -> Any:
        inherited = kind.__call__

        def call_and_tell(self: Any, *args: Any, **kwargs: Any) -> Any:
            result = inherited(self, *args, **kwargs)
            if not is_in_keras():
                with harmless("the watch over own training loops"):
                    given = [*args, *(kwargs[name] for name in named if name in kwargs)]
                    if len(given) >= num_needed:
                        tell(self, given, result)
            return result

        return call_and_tell

    keras.Model.__call__ = told(
        keras.Model,
        lambda model, args, result: training.on_call(model, args[0], result),
        ("inputs", "x"),
        num_needed=1,
    )
    keras.losses.Loss.__call__ = told(
        keras.losses.Loss,
        lambda loss, args, _: training.on_loss(loss, *args[:2]),
        ("y_true", "y_pred"),
        num_needed=2,
    )
