"""Metrics of Keras in loops of one's own that are read after every epoch and never reset."""

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from headstart.debug.callsites import is_users
from headstart.debug.diagnosis import Diagnosis
from headstart.debug.guard import harmless
from headstart.debug.source.syntax import is_in_inner_loop

MIN_READS = 2
MAX_METRICS = 50
MAX_PLACES = 20
_RUNNING_TOTALS = ("Sum",)
"""Metrics of which a total over everything is the point."""

Place = tuple[str, str, int]
"""File, function and line."""


@dataclass
class MetricUse:
    """What a program does with one metric.

    Args:
        metric: A Keras metric.
        updates: Where it is updated: each of the user's frames that lead there.
        num_reads: How often its result was asked for after further updates.
        read_at: Where its result was last asked for.
        num_resets: How often it was reset.
        is_updated: Whether it was updated since its result was last asked for.
    """

    metric: Any
    updates: set[Place] = field(default_factory=set)
    num_reads: int = 0
    read_at: Place | None = None
    num_resets: int = 0
    is_updated: bool = False


class MetricResets:
    """What is known of the metrics of one program's own loops."""

    def __init__(self) -> None:
        self._uses: dict[int, MetricUse] = {}

    def on_update(self, metric: Any, places: list[Place]) -> None:
        """Note an update.

        Args:
            metric: Metric that was updated.
            places: The user's frames that led there, the innermost first.
        """
        use = self._use_of(metric)
        use.is_updated = True
        if len(use.updates) < MAX_PLACES:
            use.updates.update(places)

    def on_result(self, metric: Any, places: list[Place]) -> None:
        """Note that a result was asked for.

        Args:
            metric: Metric that was read.
            places: The user's frames that led there, the innermost first.
        """
        if not places:
            return
        use = self._use_of(metric)
        use.num_reads += use.is_updated
        use.is_updated = False
        use.read_at = places[0]

    def on_reset(self, metric: Any) -> None:
        """Note a reset."""
        self._use_of(metric).num_resets += 1

    def diagnoses(self) -> list[Diagnosis]:
        """Return what was found; call it when the program has ended."""
        return [found for use in self._uses.values() for found in _judged(use)][:1]

    def _use_of(self, metric: Any) -> MetricUse:
        if len(self._uses) >= MAX_METRICS and id(metric) not in self._uses:
            del self._uses[next(iter(self._uses))]
        return self._uses.setdefault(id(metric), MetricUse(metric))


def _judged(use: MetricUse) -> list[Diagnosis]:
    if use.num_resets or use.num_reads < MIN_READS or use.read_at is None:
        return []
    if type(use.metric).__name__ in _RUNNING_TOTALS:
        return []
    file, function, line = use.read_at
    inner = sorted(
        at
        for where, name, at in use.updates
        if (where, name) == (file, function) and is_in_inner_loop(file, line, at)
    )
    if not inner:
        return []
    mixed = (
        f" It is updated in {len(inner)} loops (lines {', '.join(map(str, inner))}), so "
        "training and evaluation values are mixed as well."
        if len(inner) > 1
        else ""
    )
    name = str(getattr(use.metric, "name", type(use.metric).__name__))
    return [
        Diagnosis(
            symptom="metric-never-reset",
            cause=f"The metric {name!r} is read after each pass ({use.num_reads} times) but never "
            f"reset: it keeps averaging over all epochs since the first.{mixed}",
            file=file,
            line=line,
            phase="metric",
            severity="warning",
            confidence=0.85,
            suggestions=(
                "call metric.reset_state() at the start of each epoch",
                "use a separate metric object for evaluation",
            ),
            evidence={"reads": use.num_reads},
        ).with_source()
    ]


def watch_metrics(resets: MetricResets, is_in_keras: Callable[[], Any]) -> None:
    """Let Keras's metrics tell what is done with them, but in Keras's own loops.

    Args:
        resets: Told of each update, reading and reset.
        is_in_keras: Returns whether one of Keras's loops is running.
    """
    import keras

    tells: dict[str, Callable[[Any], None]] = {
        "update_state": lambda metric: resets.on_update(metric, _places()),
        "result": lambda metric: resets.on_result(metric, _places()),
        "reset_state": resets.on_reset,
    }

    def told(method: Any, tell: Callable[[Any], None]) -> Any:
        @functools.wraps(method)
        def call_and_tell(metric: Any, *args: Any, **kwargs: Any) -> Any:
            if not is_in_keras():
                with harmless("the watch over metrics"):
                    tell(metric)
            return method(metric, *args, **kwargs)

        return call_and_tell

    base = keras.metrics.Metric
    named = [one for one in vars(keras.metrics).values() if isinstance(one, type)]
    kinds = {kind for one in named for kind in one.__mro__ if issubclass(kind, base)}
    for kind in kinds:
        for name, tell in tells.items():
            if name in vars(kind):
                setattr(kind, name, told(vars(kind)[name], tell))


def _places() -> list[Place]:
    found: list[Place] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if is_users(code.co_filename):
            found.append((code.co_filename, code.co_name, frame.f_lineno))
        frame = frame.f_back
    return found
