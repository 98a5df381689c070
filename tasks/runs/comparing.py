"""Two runs against each other: settings, figures, and the images that changed sides."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headstart.errors import ConfigError
from headstart.tasks.evaluation.paired import mcnemar_p
from headstart.tasks.runs.config_file import read_config
from headstart.tasks.runs.judged_images import read_judged, read_numbers
from headstart.tasks.runs.overview import RunLine
from headstart.tasks.runs.run_folder import RUN_FILE
from headstart.tasks.store.fingerprint import changed_fields
from headstart.tasks.store.sealing import read_sealed

SIGNIFICANT_P = 0.05
"""The usual level."""
FIGURES = (
    *("accuracy", "macro_f1", "mean_average_precision", "f1_micro", "f1_macro", "hamming_loss"),
    *("subset_accuracy", "mae", "rmse", "r2", "loss", "ece", "num_images"),
)
"""Figures of a split that are laid side by side."""
WITHOUT_EFFECT = ("spread", "show")
"""Sections of a configuration that say who computes, not what."""


@dataclass(frozen=True)
class ChangedImage:
    """An image that one run has right and the other has not."""

    path: str
    split: str
    label: str
    first: str
    """What the first run took it for."""
    second: str


@dataclass(frozen=True)
class RunComparison:
    """What differs between two runs.

    Attributes:
        first: The run on the left of the page.
        second: The run on the right.
        settings: (dotted name, value in the first, value in the second) of what differs.
        figures: (split, figure, value in the first, value in the second).
        num_common: Held-out images that both were judged on.
        changed: Those of them that one has right and the other wrong, first the newly wrong.
        p_value: McNemar's, two-sided; None where no image is common.
        nearer: Of numbers, the common images of which the first is nearer to the truth, and those
            of which the second is; the p-value is then of the sign test.
    """

    first: RunLine
    second: RunLine
    settings: tuple[tuple[str, Any, Any], ...]
    figures: tuple[tuple[str, str, Any, Any], ...]
    num_common: int
    changed: tuple[ChangedImage, ...]
    p_value: float | None
    nearer: tuple[int, int] | None = None

    @property
    def num_fixed(self) -> int:
        """Images that only the second has right."""
        return sum(image.second == image.label for image in self.changed)

    @property
    def verdict(self) -> str:
        """What follows, in a sentence."""
        if self.p_value is None:
            return "no image was held out by both, so the runs cannot be compared image by image"
        if self.nearer is not None:
            return self._verdict_of_numbers(self.nearer, self.p_value)
        num_broken = len(self.changed) - self.num_fixed
        change = (
            f"of {self.num_common:,} images held out by both, the second has {self.num_fixed:,} "
            f"newly right and {num_broken:,} newly wrong (McNemar's p = {self.p_value:.2g})"
        )
        if self.p_value > SIGNIFICANT_P:
            return f"no clear difference: {change}"
        better = "second" if self.num_fixed > num_broken else "first"
        return f"the {better} is better: {change}"

    def _verdict_of_numbers(self, nearer: tuple[int, int], p_value: float) -> str:
        change = (
            f"of {self.num_common:,} images held out by both, the second is closer to the true "
            f"value on {nearer[1]:,} and further away on {nearer[0]:,} (sign test's p = "
            f"{p_value:.2g})"
        )
        if p_value > SIGNIFICANT_P:
            return f"no clear difference: {change}"
        return f"the {'second' if nearer[1] > nearer[0] else 'first'} is better: {change}"

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as JSON data."""
        numbers = {"nearer": list(self.nearer)} if self.nearer is not None else {}
        return {
            **numbers,
            "first": self.first.to_dict(),
            "second": self.second.to_dict(),
            "settings": [dict(zip(("field", *_SIDES), one, strict=True)) for one in self.settings],
            "figures": [
                dict(zip(("split", "figure", *_SIDES), one, strict=True)) for one in self.figures
            ],
            "num_common": self.num_common,
            "num_newly_right": self.num_fixed,
            "num_newly_wrong": len(self.changed) - self.num_fixed,
            "p_value": self.p_value,
            "verdict": self.verdict,
            "changed": [asdict(image) for image in self.changed],
        }


_SIDES = ("first", "second")
NUMBERS = "numbers"


def compare_runs(first: RunLine, second: RunLine) -> RunComparison:
    """Compare two finished runs.

    Raises:
        ConfigError: They learned different targets.
    """
    learned = [_learned(run) for run in (first, second)]
    if learned[0] != learned[1]:
        raise ConfigError(
            "the runs learned different targets, so no image tells them apart",
            f"{first.name}: {learned[0]}; {second.name}: {learned[1]}",
            "compare runs of one kind of target, and of the same numbers in the same order",
        )
    one, other = (read_judged(Path(run.folder)) for run in (first, second))
    common = sorted(one.keys() & other.keys())
    if common and learned[0].startswith(NUMBERS):
        pairs = [(one[key], other[key]) for key in common]
        # As with labels: what was mended between the runs is no answer of either.
        return _compare_numbers(first, second, [pair for pair in pairs if _is_same(*pair)])
    changed = [
        ChangedImage(
            other[key]["path"],
            key[1],
            other[key]["label"],
            one[key]["predicted"],
            other[key]["predicted"],
        )
        for key in common
        # A label that was mended between the runs would change sides by itself.
        if one[key]["label"] == other[key]["label"]
        and (one[key]["predicted"] == one[key]["label"])
        != (other[key]["predicted"] == other[key]["label"])
    ]
    num_fixed = sum(image.second == image.label for image in changed)
    return RunComparison(
        first,
        second,
        tuple(changed_fields(_settings(first), _settings(second))),
        tuple(_figures(_metrics(first), _metrics(second))),
        len(common),
        tuple(sorted(changed, key=lambda image: (image.second == image.label, image.path))),
        mcnemar_p(num_fixed, len(changed) - num_fixed) if common else None,
    )


def _learned(run: RunLine) -> str:
    """Say in words what a run learned; of numbers, which."""
    for figures in _metrics(run).values():
        if "mae" in figures:
            config = read_config(Path(run.folder)).get("dataset") or {}
            names = config.get("target_columns") or ()
            return f"{NUMBERS} {', '.join(map(str, names))}".rstrip()
        if "mean_average_precision" in figures:
            return "labels"
    return "classes"


def _is_same(one: dict[str, str], other: dict[str, str]) -> bool:
    """Tell whether an image's true value is the same in both runs."""
    return one["label"] == other["label"]


def _compare_numbers(
    first: RunLine, second: RunLine, pairs: list[tuple[dict[str, str], dict[str, str]]]
) -> RunComparison:
    """Compare two runs on numbers by which of them is nearer to the truth."""
    if not pairs:
        return _compared(first, second, 0, None, None)
    truth = np.array([read_numbers(one["label"]) for one, _ in pairs])
    errors = [
        np.abs(np.array([read_numbers(pair[side]["predicted"]) for pair in pairs]) - truth)
        for side in (0, 1)
    ]
    # Numbers of several units: each error is a share of what that number varies by.
    spread = np.where(truth.std(axis=0) > 0, truth.std(axis=0), 1.0)
    means = [(one / spread).mean(axis=1) for one in errors]
    nearer = int((means[0] < means[1]).sum()), int((means[1] < means[0]).sum())
    return _compared(first, second, len(pairs), mcnemar_p(nearer[1], nearer[0]), nearer)


def _compared(
    first: RunLine,
    second: RunLine,
    num_common: int,
    p_value: float | None,
    nearer: tuple[int, int] | None,
) -> RunComparison:
    settings = tuple(changed_fields(_settings(first), _settings(second)))
    figures = tuple(_figures(_metrics(first), _metrics(second)))
    return RunComparison(first, second, settings, figures, num_common, (), p_value, nearer)


def _settings(run: RunLine) -> dict[str, Any]:
    config = read_config(Path(run.folder))
    return {name: value for name, value in config.items() if name not in WITHOUT_EFFECT}


def _metrics(run: RunLine) -> dict[str, Any]:
    try:
        return dict(read_sealed(Path(run.folder) / RUN_FILE).get("metrics") or {})
    except (OSError, ValueError):
        return {}


def _figures(first: dict[str, Any], second: dict[str, Any]) -> list[tuple[str, str, Any, Any]]:
    lines: list[tuple[str, str, Any, Any]] = []
    for split in dict.fromkeys((*first, *second)):
        one, other = first.get(split), second.get(split)
        for figure in FIGURES:
            before, after = (
                of.get(figure) if isinstance(of, dict) else None for of in (one, other)
            )
            if before is not None or after is not None:
                lines.append((split, figure, before, after))
    return lines
