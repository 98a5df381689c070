"""Rows that a model is tested on, though an earlier `fit` trained the same weights on them.

So it goes where the folds of a cross-validation share a model, or layers: each fold begins with
what was learnt from the rows that it holds out.
"""

import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from headstart.debug.callsites import CallSite
from headstart.debug.diagnosis import Diagnosis
from headstart.debug.preflight.held_out import MIN_ROWS, is_varied, parts_of
from headstart.debug.symptoms.overlaps import keys_of
from headstart.debug.symptoms.variables import print_of, storage_of

MAX_KNOWN = 20
"""Networks whose rows are remembered."""
MOST = 0.5
"""Share of the rows tested that an earlier training has seen."""
FEW = 0.02
"""Share of them that the latest training has seen, up to which they are held out from it."""
MAX_ROWS = 200_000
"""Rows of one network that are remembered."""
MIN_FROZEN = 2
"""Frozen layers with the shapes of layers that were trained."""


@dataclass
class _Known:
    """Rows that one variable was trained on.

    Args:
        variable: The variable; one that is gone may have left its id to another.
        latest: What the rows of the latest ``fit`` are known by.
        before: The like of all others.
        left_as: What the variable was when the latest ended; 0 before the first.
        site: The user's line of the latest.
        targets: What the latest was trained for, as far as their shapes tell.
    """

    variable: weakref.ref[Any]
    latest: set[int] = field(default_factory=set)
    before: set[int] = field(default_factory=set)
    left_as: int = 0
    site: CallSite | None = None
    targets: tuple[Any, ...] = ()


class EarlierRows:
    """What the networks of one program were trained on.

    Attributes:
        found: What is wrong, once it is.
    """

    def __init__(self) -> None:
        self.found: list[Diagnosis] = []
        self._known: dict[int, _Known] = {}
        self._trained: list[list[tuple[int, ...]]] = []

    def on_call(self, name: str, model: Any, x: Any) -> None:
        """Note a call of the program's that begins.

        Args:
            name: ``fit``, ``evaluate`` or another.
            model: Its model.
            x: The inputs.
        """
        if name == "fit":
            self.on_begin(model)
        elif name == "evaluate":
            self.on_evaluate(model, x)

    def on_begin(self, model: Any) -> None:
        """Note a ``fit`` that begins: weights that were set since the last are not those it left.

        Args:
            model: Its model.
        """
        known = self._of(model)
        if known is not None and known.left_as != print_of(known.variable()):
            known.latest, known.before = set(), set()

    def on_fit(
        self, model: Any, given: Mapping[str, Any], rows: set[int], site: CallSite | None
    ) -> None:
        """Note a ``fit`` that has ended.

        Args:
            model: Its model.
            given: What it was given, by name.
            rows: What the rows that were trained on are known by (`overlaps.keys_of`).
            site: The user's line.
        """
        self._look_at_frozen(model, site)
        known = self._of(model)
        if known is None:
            return
        before, known.targets = known.targets, _targets_of(given)
        if before != known.targets:  # pretrained for something else, as an autoencoder is
            known.before, known.latest = set(), set()
        if len(known.before) < MAX_ROWS:
            known.before |= known.latest
        known.latest, known.site = set(rows), site
        known.left_as = print_of(known.variable())
        parts = parts_of(given)
        if parts is not None:
            self._look(known, parts[1])

    def on_evaluate(self, model: Any, x: Any) -> None:
        """Note an ``evaluate``.

        Args:
            model: Its model.
            x: The inputs.
        """
        known = self._of(model)
        if known is not None and isinstance(x, np.ndarray):
            self._look(known, x)

    def _look_at_frozen(self, model: Any, site: CallSite | None) -> None:
        """Find frozen layers with the weights that they were made with, of which others learnt."""
        layers = [one for one in model._flatten_layers(include_self=False)
                  if getattr(one, "kernel", None) is not None
                  and getattr(one, "bias", None) is not None]  # fmt: skip
        new = [one for one in layers if not one.trainable and not np.any(one.bias.numpy())]
        shapes = [tuple(one.kernel.shape) for one in new]
        if len(new) >= MIN_FROZEN and any(_holds(other, shapes) for other in self._trained):
            self.found.append(_of_frozen(new, site))
        self._trained = self._trained[-MAX_KNOWN:]
        self._trained.append([tuple(one.kernel.shape) for one in layers
                              if one.trainable and np.any(one.bias.numpy())])  # fmt: skip

    def _of(self, model: Any) -> _Known | None:
        kernels = [storage_of(one) for one in model.trainable_variables if len(one.shape) > 1]
        if not kernels:
            return None
        known = self._known.get(id(kernels[0]))
        if known is not None and known.variable() is kernels[0]:
            return known
        self._known.pop(id(kernels[0]), None)
        if len(self._known) >= MAX_KNOWN:
            del self._known[next(iter(self._known))]
        known = self._known[id(kernels[0])] = _Known(weakref.ref(kernels[0]))
        return known

    def _look(self, known: _Known, tested: Any) -> None:
        if (
            any(one.symptom == "tested-on-earlier-rows" for one in self.found)
            or not known.before
            or len(tested) < MIN_ROWS
            or not is_varied(tested)
        ):
            return
        keys = keys_of(tested)
        if not keys or np.mean([key in known.latest for key in keys]) > FEW:
            return
        share = float(np.mean([key in known.before for key in keys]))
        if share < MOST:
            return
        self.found.append(
            Diagnosis(
                symptom="tested-on-earlier-rows",
                cause=f"{share:.0%} of the {len(keys)} rows that the model is tested on were "
                "trained on by an earlier fit of the same weights: this training did not start "
                "from new weights, but from those already trained (the model, or its layer "
                "objects, are shared and reused from fold to fold). The result is too optimistic, "
                "unless you measure forgetting, or the earlier training had other targets.",
                phase="data",
                severity="warning",
                confidence=0.95,
                suggestions=(
                    "build new layers and a new model for each fold, in a function",
                    "or restore the initial weights: model.set_weights(initial)",
                ),
                evidence={"share": share, "is_certain": False},
            ).at(known.site)
        )


def _targets_of(given: Mapping[str, Any]) -> tuple[Any, ...]:
    """Tell kinds of targets apart: the inputs themselves, or the shape of a row."""
    x, y = given.get("x"), given.get("y")
    shape: tuple[int, ...] = tuple(getattr(y, "shape", ()))
    is_input = (
        isinstance(x, np.ndarray)
        and isinstance(y, np.ndarray)
        and np.array_equal(y[:MIN_ROWS], x[:MIN_ROWS])
    )
    return ("inputs" if is_input else "targets", *shape[1:])


def _holds(shapes: list[tuple[int, ...]], wanted: list[tuple[int, ...]]) -> bool:
    """Tell whether shapes come one after the other among others."""
    starts = range(len(shapes) - len(wanted) + 1)
    return any(shapes[start : start + len(wanted)] == wanted for start in starts)


def _of_frozen(layers: list[Any], site: CallSite | None) -> Diagnosis:
    names = ", ".join(str(layer.path) for layer in layers[:3])
    return Diagnosis(
        symptom="frozen-untrained-layers",
        cause=f"{len(layers)} layers ({names}) are frozen (trainable = False) with their "
        "random initial weights: they were never trained. An earlier fit trained layers of exactly "
        "these shapes, but its weights are not used here (the layers were built again, and the "
        "pretrained ones are lost). Ignore this if you want random features.",
        phase="model",
        severity="warning",
        confidence=0.94,
        suggestions=(
            "use the trained layers themselves: keep the encoder that was trained, and pass it on",
            "or copy their weights: new.set_weights(trained.get_weights())",
        ),
        evidence={"layers": [str(layer.path) for layer in layers[:20]], "is_certain": False},
    ).at(site)
