"""The trainings of one program together: which of them were a search's."""

import itertools
from dataclasses import replace
from typing import Any

from headstart.debug.diagnosis import Diagnosis
from headstart.debug.preflight.fit_data import Judged

MIN_SEARCHED = 3
"""Models trained in one program from which on it may be a search."""
_NUMBER = "_headstart_number"
_numbers = itertools.count()


def of_fits(fits: list[Judged]) -> list[Diagnosis]:
    """Return what to say of the trainings of one program.

    Args:
        fits: What was found of each model's.

    Returns:
        The findings. Where several models were tried and one came to something, the others are a
        search's: what they lacked is advice.
    """
    is_search = len(fits) >= MIN_SEARCHED and any(is_clean(fit) for fit in fits)
    return [
        replace(one, severity="advice")
        if is_search and not one.evidence.get("is_certain") and not is_clean(fit)
        else one
        for fit in fits
        for one in fit.found
    ]


def is_clean(fit: Judged) -> bool:
    """Tell whether a training came to something and has no fault."""
    return fit.level == "well" and all(one.severity in ("warning", "advice") for one in fit.found)


def number_of(model: Any) -> int:
    """Return a number of the model's own: an address may serve several, one after the other."""
    known = vars(model).get(_NUMBER)
    if known is None:
        known = vars(model)[_NUMBER] = next(_numbers)
    return int(known)
