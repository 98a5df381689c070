"""What of a program there was to see: without it "nothing found" would mean nothing."""

import math
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Watched:
    """Counts of what was watched in this process.

    Args:
        fits: Number of calls of ``fit``.
        steps: Training steps of Keras.
        evaluations: Calls of ``evaluate`` and ``predict``.
        own_steps: Steps of the program's own: gradients taken eagerly, ``train_on_batch``, and
            calls of a tf.function that returned numbers.
        session_runs: Calls of a TF1 session's ``run``.
        metrics: The last logged value of each.
        beats: Grows with everything watched: a program that stands still shows by it.
    """

    fits: int = 0
    steps: int = 0
    evaluations: int = 0
    own_steps: int = 0
    session_runs: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    beats: int = 0

    @property
    def anything(self) -> bool:
        """Whether any training or evaluation was seen."""
        return self.beats > 0

    @property
    def is_training(self) -> bool:
        """Whether any training was seen, or what may be one."""
        return bool(self.fits or self.own_steps or self.session_runs)

    def note(self, what: str, number: int = 1) -> None:
        """Count something.

        Args:
            what: Name of the field to add to.
            number: Amount to add.
        """
        setattr(self, what, getattr(self, what) + number)
        self.beats += 1

    def note_metric(self, name: str, value: float) -> None:
        """Keep the last value of a metric."""
        self.metrics[name] = value
        self.beats += 1


watched = Watched()
"""Of this process."""


def in_words(seen: dict[str, Any]) -> str:
    """Say what was watched, and what the last metrics were.

    Args:
        seen: A `Watched` as a dictionary.

    Returns:
        One sentence or two.
    """
    parts = [
        f"{seen[name]:,} {singular if seen[name] == 1 else plural}"
        for name, singular, plural in (
            ("fits", "fit", "fits"),
            ("steps", "training step in fit", "training steps in fit"),
            ("evaluations", "evaluation or prediction", "evaluations and predictions"),
            ("own_steps", "training step in custom loops", "training steps in custom loops"),
            ("session_runs", "session run", "session runs"),
        )
        if seen.get(name)
    ]
    if not parts:
        return "Nothing was watched: the script ran no training that the debugger can see."
    text = f"Watched: {', '.join(parts)}."
    metrics = [
        f"{name} {value:.4g}"
        for name, value in list(seen.get("metrics", {}).items())[:8]
        if isinstance(value, int | float) and math.isfinite(value)
    ]
    return f"{text} Last: {', '.join(metrics)}." if metrics else text
