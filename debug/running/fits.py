"""The trainings of one program together: which of them were a search's."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

from headstart.debug.callsites import calling_site
from headstart.debug.diagnosis import Diagnosis
from headstart.debug.guard import harmless
from headstart.debug.preflight.fit_data import Judged, judge_fit
from headstart.debug.preflight.placing import at_layer
from headstart.debug.running.watched import watched
from headstart.debug.symptoms.batches import fed_to_fit
from headstart.debug.symptoms.curves import write_curves
from headstart.debug.symptoms.earlier import EarlierRows
from headstart.debug.symptoms.made_anew import MadeAnew

MIN_SEARCHED = 3
"""Models trained in one program from which on it may be a search."""
_NUMBER = "_headstart_number"
_numbers = itertools.count()


class Fits:
    """Judges each ``fit`` of a program when it has ended, and keeps what was found.

    Args:
        log_dir: Where curves of each ``fit`` go, for TensorBoard; None writes none.

    Attributes:
        judged: What was found of each model's, by `number_of` the model.
    """

    def __init__(self, log_dir: Path | None) -> None:
        self.judged: dict[int, Judged] = {}
        self.earlier = EarlierRows()
        self._made_anew = MadeAnew()
        self._log_dir = log_dir

    def judge(self, model: Any, given: dict[str, Any], rules: Any, is_broken: bool) -> None:
        """Judge a ``fit`` that has ended, and forget what it was judged by."""
        from headstart.debug.symptoms.callback import worth_telling

        symptoms = worth_telling(rules.diagnoses) if rules is not None else []
        if rules is not None:
            with harmless("the rules about batches"):
                symptoms += fed_to_fit(rules.fed, given)
        trace = rules.trace if rules is not None else None
        batches = rules.batches if rules is not None else []
        if self._log_dir is not None and trace is not None:
            with harmless("the curves"):
                write_curves(trace, self._log_dir / f"fit-{watched.fits}")
        rows = rules.fed.overlaps.rows if rules is not None else set()
        with harmless("the rules about earlier rows"):
            self.earlier.on_fit(model, given, rows, calling_site())
        with harmless("the rule about models made anew"):
            self._made_anew.on_fit(model, given, calling_site())
        judged = judge_fit(model, given, trace, batches, symptoms, is_broken, rows)
        placed = [at_layer(one, model) for one in judged.found]
        number = number_of(model)
        # A model that is fitted again is judged by its last training, but for what is certain.
        known = self.judged.get(number, Judged([], "unknown")).found
        placed += [one for one in known if one.evidence.get("is_certain")]
        self.judged[number] = Judged(placed, judged.level)

    @property
    def has_clean(self) -> bool:
        """Whether one of them came to something and has no fault."""
        return any(map(is_clean, self.judged.values()))

    def diagnoses(self) -> list[Diagnosis]:
        """Return what to say of all of them."""
        return [*self._made_anew.diagnoses(), *of_fits(list(self.judged.values()))]


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
