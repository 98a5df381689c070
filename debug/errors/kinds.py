"""What one kind of TensorFlow's messages is: how it reads, and what it means."""

import re
from dataclasses import dataclass

from headstart.debug.diagnosis import Phase


@dataclass(frozen=True)
class ExceptionPattern:
    """One kind of message.

    Args:
        symptom: Symptom code of the diagnosis.
        pattern: What the message looks like; named groups fill ``cause``.
        cause: The cause in a sentence, a ``str.format`` template over the groups and ``detail``
            (the line of the message that matched).
        suggestions: What the user can try, the most likely help first.
        phase: The part of training in which it is raised.
    """

    symptom: str
    pattern: re.Pattern[str]
    cause: str
    suggestions: tuple[str, ...]
    phase: Phase = "model"


def pattern_of(
    symptom: str,
    pattern: str,
    cause: str,
    *suggestions: str,
    phase: Phase = "model",
) -> ExceptionPattern:
    """Return a kind of message; its arguments are the fields of an `ExceptionPattern`."""
    return ExceptionPattern(symptom, re.compile(pattern, re.IGNORECASE), cause, suggestions, phase)
