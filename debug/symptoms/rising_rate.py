"""A learning rate that rises during a training until the loss is worse than before."""

import ast
import re
from collections.abc import Sequence

import numpy as np

from headstart.debug.callsites import CallSite, callee, tree_of
from headstart.debug.diagnosis import Diagnosis

GROWTH = 10.0
"""Times its first value from which on a rate has risen and not warmed up."""
WORSE = 1.3
"""The loss at the end over its best, from which on the rise did harm."""
NUM_WINDOWS = 20
MIN_SAMPLES = 3
_SEEKS_RATE = re.compile(
    r"(lr|rate)_?(find|range|test|search)|find(ing)?_?(lr|rate|learning)", re.I
)
"""What programs call a search, which raises the rate on purpose until the loss explodes."""


def rising_rate(
    rates: Sequence[float], losses: Sequence[float], site: CallSite | None
) -> list[Diagnosis]:
    """Find a rate that ends at its highest, and a loss that was better before.

    Args:
        rates: The rate at some training steps, evenly spread.
        losses: The loss of each step.
        site: The user's line that sets the rate.

    Returns:
        A finding, or none.
    """
    if site is not None and _seeks_rate(site.file):
        return []
    positive = [rate for rate in rates if rate > 0.0]
    size = len(losses) // NUM_WINDOWS
    if len(positive) < MIN_SAMPLES or size < 1 or positive[-1] < GROWTH * positive[0]:
        return []
    means = np.asarray(losses[-size * NUM_WINDOWS :]).reshape(NUM_WINDOWS, size).mean(axis=1)
    if max(positive) > positive[-1] or not np.isfinite(means).any():
        return []
    best = int(np.nanargmin(means))
    if np.isfinite(means[-1]) and means[-1] - means[best] < (WORSE - 1) * abs(means[best]):
        return []
    return [
        Diagnosis(
            symptom="learning-rate-too-high",
            cause=f"The learning rate grows from {positive[0]:.4g} to {positive[-1]:.4g} during "
            "the training: its schedule raises it where it should decay. The loss was best "
            f"({means[best]:.4g}) after {best / NUM_WINDOWS:.0%} of the training steps and ends "
            f"at {means[-1]:.4g}.",
            phase="optimizer",
            confidence=0.96,
            suggestions=(
                "multiply by a factor below 1 (decay): rate * decay_rate ** epoch",
                "print the rate at each epoch",
            ),
            evidence={"rates": positive[:: max(1, len(positive) // 10)]},
        ).at(site)
    ]


def _seeks_rate(file: str) -> bool:
    """Say whether a program defines, or calls, something named after a search for the rate."""
    tree = tree_of(file)
    for node in ast.walk(tree) if tree is not None else ():
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            name = node.name
        else:
            name = callee(node) if isinstance(node, ast.Call) else ""
        if _SEEKS_RATE.search(name):
            return True
    return False
