"""Rules about the batches that a training is fed: the same one over and over, one class each.

Every training step tells of its batch; a few bytes of it are kept. They do not judge what is
meant: a data set that is one batch, trained on as a whole, is no fault.
"""

import functools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from headstart.debug.callsites import CallSite, calling_site
from headstart.debug.diagnosis import Diagnosis
from headstart.debug.internals import private
from headstart.debug.source.syntax import origin_of_argument, spent_iterators
from headstart.debug.symptoms.apart import Pairs, has_equal_rows
from headstart.debug.symptoms.overlaps import Overlaps, line_of_batches, line_of_slice, rows_held

MAX_STEPS = 500
"""Steps whose batches are looked at."""
MIN_STEPS = 20
"""Steps before what was fed means something."""
MIN_MORE = 2.0
"""Rows at hand over rows fed from which on a training leaves most of its data out."""
FULL_ROWS = 128
FULL_SHARE = 0.2
"""Rows of a batch, and share of the rows at hand, from which on it may be all that is meant to be
trained on: the others are kept for a test."""
MAX_ENDED = 0.1
"""Share of the iterators that came to their end below which they are made anew in each step."""
MIN_BATCHES = 12
"""Batches with labels before their order is judged."""
PURE = 0.6
"""Part of the way from the mix that chance makes to batches of one class each from which on the
data come sorted."""
MAX_CHANGES = 0.3
"""Changes from one class to the other, over batches, up to which two classes come one by one."""
MAX_BY_CHANCE = 0.8
"""Purity of batches that are mixed from which on one class is nearly all there is."""
MIN_ROWS = 4
"""Rows of a batch that can be of one class by more than chance."""


class Batches:
    """What is known of the batches of one training."""

    def __init__(self) -> None:
        self.site: CallSite | None = None
        self.num_steps = 0
        self.rows_at_hand = 0
        self.row_shape: tuple[int, ...] = ()
        self._rows_fed: dict[bytes, int] = {}
        self._fed_besides: set[int] = set()
        self.is_split = False
        self._last: Any = None
        self._num_new_objects = 0
        self._num_labelled = 0
        self._num_pure = 0
        self._num_changes = 0
        self._last_class: int | None = None
        self._purity = 0.0
        self._num_rows = 0
        self._counts: Counter[int] = Counter()
        self._are_rows_alike = False
        self.overlaps = Overlaps()
        self.pairs = Pairs()

    def on_step(
        self,
        x: Any,
        y: Any = None,
        site: CallSite | None = None,
        besides: Sequence[np.ndarray[Any, Any]] = (),
    ) -> None:
        """Note the batch of a training step.

        Args:
            x: Inputs of the batch.
            y: Targets of the batch, where they are known.
            site: The user's line that trains on it.
            besides: Whatever else the step is fed.
        """
        if self.num_steps >= MAX_STEPS:
            return
        self.num_steps += 1
        self.site = self.site or site
        parts = list(x.values()) if isinstance(x, dict) else x
        x, *others = parts if isinstance(parts, list | tuple) and parts else [parts]
        if getattr(x, "ndim", None) is None or not x.ndim or not len(x):
            return
        if x is not self._last:
            self._num_new_objects += 1
        self._last = x
        self.row_shape = tuple(x.shape[1:])
        known = [*besides, *(one for one in others if getattr(one, "ndim", None))]
        ends = [np.asarray(end).tobytes() for one in known for end in (one[:1], one[-1:])]
        self._fed_besides.add(hash(b"".join(ends)))
        self._note_rows(x)
        self._note_labels(None if others else x, y)
        self.overlaps.on_batch(x)

    def note_rows_at_hand(self, num_rows: int) -> None:
        """Note how many rows there are to train on."""
        self.rows_at_hand = max(self.rows_at_hand, num_rows)

    @property
    def rows_fed(self) -> int:
        """Distinct rows that steps were fed, as far as batches tell."""
        return sum(self._rows_fed.values())

    def diagnoses(self) -> list[Diagnosis]:
        """Return what was found; call it when the training has ended."""
        overlap = self.overlaps.diagnoses(line_of_slice(self.site))
        return [*self.same_batch(), *overlap, *self._one_class_each()]

    def _note_rows(self, x: Any) -> None:
        base = getattr(x, "base", None)
        if isinstance(base, np.ndarray) and base.ndim == x.ndim and base.shape[1:] == x.shape[1:]:
            self.note_rows_at_hand(len(base))  # a slice of all the data
            self.overlaps.note_rows_at_hand(len(base))
        ends = [np.asarray(x[:1]), np.asarray(x[-1:])]
        self._rows_fed[b"".join(end.tobytes() for end in ends)] = len(x)
        if len(self._rows_fed) == 1 and self.num_steps == 1:
            every = np.asarray(x)
            self._are_rows_alike = bool(len(every) > 1 and (every == every[:1]).all())

    def _note_labels(self, x: Any, y: Any) -> None:
        if y is None or not hasattr(y, "shape") or len(y) < MIN_ROWS:
            return
        labels = np.asarray(y)
        if labels.ndim == 2 and labels.shape[1] > 1:
            labels = labels.argmax(axis=1) if (labels.sum(axis=1) == 1).all() else labels[:, :0]
        if labels.size != len(labels) or labels.dtype.kind not in "fiub":
            return
        labels = labels.reshape(-1)
        if (labels != np.rint(labels)).any():
            return
        self._num_labelled += 1
        if x is not None:
            self.pairs.on_batch(x, labels)
        shares = np.unique(labels, return_counts=True)[1] / len(labels)
        self._purity += float((shares**2).sum())
        self._num_rows += len(labels)
        for label, rows in zip(*np.unique(labels, return_counts=True), strict=True):
            self._counts[int(label)] += int(rows)
        is_pure = bool((labels == labels[0]).all())
        self._num_pure += is_pure
        self._num_changes += is_pure and self._last_class != int(labels[0])
        self._last_class = int(labels[0]) if is_pure else None

    def same_batch(self) -> list[Diagnosis]:
        """Find steps that were all fed the same few rows, with more at hand."""
        if self.num_steps < MIN_STEPS or self._are_rows_alike or not self._rows_fed:
            return []
        leaves_out = self.rows_at_hand >= MIN_MORE * self.rows_fed and not self._is_full
        is_made_anew = iterators.num_made >= MIN_STEPS and (
            iterators.num_ended <= MAX_ENDED * iterators.num_made
        )
        # One object for every step is one batch by intention.
        is_one = len(self._rows_fed) == len(self._fed_besides) == 1
        is_one = is_one and self._num_new_objects >= MIN_STEPS
        if not is_one or not (leaves_out or is_made_anew):
            return []
        site = iterators.site if is_made_anew else self.site
        share = f" of {self.rows_at_hand}" if leaves_out else ""
        return [
            Diagnosis(
                symptom="same-batch",
                cause=f"All {self.num_steps} training steps use the same batch ({self.rows_fed} "
                f"rows{share}): the rest of the data is never seen. Either a new iterator is made "
                "at each training step (next(iter(dataset)) in the loop), or an index never "
                "reaches the other rows.",
                phase="data",
                confidence=0.95,
                suggestions=(
                    "use one iterator over the data: for x, y in dataset: ...",
                    "or make it once, before the loop: it = iter(dataset.repeat()); next(it)",
                    "check the index: its range (len(x) // batch_size), and that a generator sets "
                    "it to 0 before its endless loop, not inside",
                ),
                evidence={"rows_fed": self.rows_fed, "rows_at_hand": self.rows_at_hand},
            ).at(site)
        ]

    @property
    def _is_full(self) -> bool:
        """Whether the batch may well be all that is meant to be trained on."""
        is_large = self.rows_fed >= max(FULL_ROWS, FULL_SHARE * self.rows_at_hand)
        return is_large and not self.is_split

    def _one_class_each(self) -> list[Diagnosis]:
        """Find batches that each hold one class, of several."""
        if self._num_labelled < MIN_BATCHES or len(self._counts) < 2:
            return []
        purity, rows = self._purity / self._num_labelled, self._num_rows / self._num_labelled
        mixed = sum((count / self._num_rows) ** 2 for count in self._counts.values())
        by_chance = mixed + (1.0 - mixed) / rows
        if by_chance > MAX_BY_CHANCE or purity < by_chance + PURE * (1.0 - by_chance):
            return []
        if len(self._counts) == 2 and self._num_changes > MAX_CHANGES * self._num_labelled:
            return []  # real and made-up rows in turn, as a GAN's critic is fed
        return [
            Diagnosis(
                symptom="not-shuffled",
                cause="The data come sorted by class (they are not shuffled): a batch is "
                f"{math.sqrt(purity):.0%} one of the {len(self._counts)} classes. Each training "
                "step sees one class and forgets the others; a shuffle is missing, or its buffer "
                "is far too small.",
                phase="data",
                confidence=0.92,
                suggestions=(
                    "shuffle before batching, with a buffer as large as the data: "
                    "ds.shuffle(len(x)).batch(32)",
                    "shuffle the rows (or the list of files) once before the data set is made",
                ),
                evidence={"pure": self._num_pure, "batches": self._num_labelled},
            ).at(self.site)
        ]


def spent_input(sites: Iterable[CallSite | None]) -> list[Diagnosis]:
    """Find what the loops of a program go through in every epoch, though it is spent after one.

    Args:
        sites: Lines that train.

    Returns:
        A finding for each.
    """
    return [
        Diagnosis(
            symptom="input-spent",
            cause=f"{name!r} is {what} outside the loop over epochs, and can be read only once. "
            "From the second epoch on it is exhausted (spent) and gives no batch, so nothing "
            "is trained any more.",
            file=file,
            line=line,
            phase="data",
            confidence=0.95,
            suggestions=(
                "make it inside the loop over epochs",
                "or use something that can be read again: a list, or a tf.data.Dataset",
            ),
        ).with_source()
        for file in {site.file for site in sites if site is not None}
        for line, name, what in sorted(set(spent_iterators(file)))
    ]


def fed_to_fit(fed: Batches, given: Mapping[str, Any]) -> list[Diagnosis]:
    """Judge the batches of a ``fit``.

    Args:
        fed: What is known of them.
        given: What ``fit`` was given, by name.
    """
    x: Any = given.get("x")
    if hasattr(x, "__getitem__") and hasattr(x, "num_batches"):  # a PyDataset says how many
        fed.note_rows_at_hand(len(x) * fed.rows_fed)
        fed.is_split = True
    places = {"not-shuffled": origin_of_argument(fed.site, "fit"),
              "overlapping-batches": line_of_batches(x) or fed.site,
              "same-batch": line_of_batches(x)}  # fmt: skip
    held = rows_held(x, fed.row_shape)
    fed.overlaps.note_rows_at_hand(max(held, default=0))
    if fed.row_shape and fed.rows_fed not in held:  # else the batch is all of an array, on purpose
        fed.note_rows_at_hand(max(held, default=0))
    apart = [] if has_equal_rows(x) else fed.pairs.diagnoses(fed.site)
    return [
        replace(one, file=place.file, line=place.line, source_context=()).with_source()
        if (place := places.get(one.symptom)) is not None
        else one
        for one in [*apart, *fed.diagnoses()]
    ]


def by_outcome(found: list[Diagnosis], level: str) -> list[Diagnosis]:
    """Weigh findings by what the training came to.

    Args:
        found: Findings about its batches.
        level: ``well``, ``little``, ``nothing`` or ``unknown``.

    Returns:
        The findings; where much was learnt classes that come one by one are a warning, and
        batches that overlap are left alone unless most of the data is known to be left out.
    """
    if level != "well":
        return found
    kept = [one for one in found
            if one.symptom != "overlapping-batches" or one.evidence["is_told_anyway"]]  # fmt: skip
    return [
        replace(one, severity="warning") if one.symptom == "not-shuffled" else one for one in kept
    ]


class _Iterators:
    """Counts the iterators over data sets that the program itself makes, and those that end."""

    def __init__(self) -> None:
        self.num_made = 0
        self.num_ended = 0
        self.site: CallSite | None = None


iterators = _Iterators()
"""Of this process."""


def watch_iterators(is_in_keras: Callable[[], Any]) -> None:
    """Let iterators over ``tf.data`` tell when they begin and when they end.

    Args:
        is_in_keras: Returns whether one of Keras's loops is running: those are not counted.
    """
    kind = private("OwnedIterator")
    begin, draw = kind.__init__, kind.__next__

    @functools.wraps(begin)
    def begin_and_tell(self: Any, *args: Any, **kwargs: Any) -> None:
        begin(self, *args, **kwargs)
        if not is_in_keras():
            iterators.num_made += 1
            iterators.site = iterators.site or calling_site()

    @functools.wraps(draw)
    def draw_and_tell(self: Any) -> Any:
        try:
            return draw(self)
        except StopIteration:
            iterators.num_ended += 1
            raise

    kind.__init__, kind.__next__ = begin_and_tell, draw_and_tell
