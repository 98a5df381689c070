"""Promoting a model: only one that beats the one in use, on the same images."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from headstart.config import DatasetConfig, Split
from headstart.errors import ConfigError
from headstart.tasks.dataset.index import DatasetIndex
from headstart.tasks.dataset.stage import index_of
from headstart.tasks.dataset.stage import stage as dataset_stage
from headstart.tasks.evaluation.judges import JUDGES, LESS_IS_BETTER, judge_of
from headstart.tasks.export.judging import judge_split
from headstart.tasks.export.model_files import read_card
from headstart.tasks.models.registry import MODEL_FILE, Registry, Version, check_name, check_run
from headstart.tasks.progress import reporter
from headstart.tasks.runs.config_file import dataset_of
from headstart.tasks.runs.run_folder import RUN_FILE
from headstart.tasks.store.artifacts import current_store
from headstart.tasks.store.sealing import read_sealed

_SPLITTING = ("val_fraction", "test_fraction", "split_seed", "exclude")
"""Fields of a data set's configuration that decide which images are held out."""
_MAX_SHOWN = 5
"""Classes that an error names."""


class Gain(NamedTuple):
    """What makes a model better than another.

    Attributes:
        min_gain: By how much it must be better, see `Comparison`.
        metric: Name of the figure; None for the one that such models are known by.
    """

    min_gain: float = 0.0
    metric: str | None = None


@dataclass(frozen=True)
class Comparison:
    """A new model against the one in use, on the same images.

    Attributes:
        value_in_use: Figure of the model in use; None where there is none.
        min_gain: By how much the new one must be better; of an error, the share of it that must
            go.
        doubt: Why the model in use may have been trained on some of the images, as a clause;
            empty where its configuration does not say so.
    """

    split: Split
    num_images: int
    value: float
    value_in_use: float | None
    min_gain: float
    doubt: str = ""
    metric: str = "accuracy"

    @property
    def is_better(self) -> bool:
        """Whether the new model may replace the one in use."""
        before = self.value_in_use
        if before is None:
            return True
        if self.metric in LESS_IS_BETTER:
            return self.value < before * (1.0 - self.min_gain)
        return self.value > before + self.min_gain

    def describe(self) -> str:
        """Say in a sentence what was compared and what follows."""
        images = f"{self.num_images:,} {self.split} images"
        if self.value_in_use is None:
            return f"promoted as the first model: {self._written(self.value)} on {images}"
        verdict = "promoted" if self.is_better else "not promoted"
        more = "less" if self.metric in LESS_IS_BETTER else "more"
        needed = f", {100 * self.min_gain:.2f} % {more} were needed" if self.min_gain else ""
        return (
            f"{verdict}: {self._written(self.value)} against {self._written(self.value_in_use)} "
            f"for the model in use, on the same {images}{needed}"
            + (f"; {self.doubt}" if self.doubt else "")
        )

    def _written(self, value: float) -> str:
        if self.metric == "accuracy":
            return f"{100 * value:.2f} %"
        return f"{self.metric} {value:.4g}"


def compare_with_model_in_use(
    name: str, run: Path, source: DatasetConfig, index: DatasetIndex, gain: Gain
) -> Comparison:
    """Judge a run's model and the one in use on the same images, held out from the new one.

    Where the data has no splits of its own, an image's split depends on its bytes, the fractions
    and the seed, so with the same of these an image that is held out now was held out when the
    model in use was trained, if it was there. Of files that were moved between train/ and val/
    nothing is known. The test split where there is one, since the val split has chosen the epoch.

    Args:
        name: Name of the model in the registry.
        run: Folder of a finished run.
        source: Where its images are.
        index: The data set as it is now.
        gain: By what, and how much, the new model must be better.

    Raises:
        ConfigError: No images are held out, or the model in use is one of other classes.
    """
    splits: tuple[Split, ...] = ("test", "val")
    split = next((one for one in splits if index.rows_of(one)), None)
    if split is None:
        raise ConfigError(
            "there are no held-out images to compare the models on",
            f"{source.images} has no test and no val split",
            "hold some out (dataset.test_fraction), or promote with --force",
        )
    check_classes(name, index)
    metric = check_metric(gain.metric, index)
    in_use = Registry(current_store()).entry(name).in_use
    before, doubt = None, ""
    if in_use is not None:
        doubt = _doubt(_folder(in_use), source)
        reporter().note(f"evaluating version {in_use.number} of {name}, which is in use")
        before = judge_split(_folder(in_use), source, index, split, metric)
    value = judge_split(run, source, index, split, metric)
    num_images = len(index.rows_of(split))
    return Comparison(split, num_images, value, before, gain.min_gain, doubt, metric)


def check_classes(name: str, index: DatasetIndex) -> None:
    """Refuse a name that another data set's model has: two folders may be called the same.

    Raises:
        ConfigError: The model in use knows none of the data set's classes.
    """
    in_use = Registry(current_store()).entry(name).in_use
    if in_use is None:
        return
    card = read_card(_folder(in_use) / MODEL_FILE)
    if card.target != index.kind:
        raise ConfigError(
            f"the model in use as {name} has a different kind of target than the data set",
            f"{card.target} in the model, {index.kind} in the data set",
            "choose another name with --name or promotion.name; `headstart promote RUN --force` "
            "replaces it all the same",
        )
    known = card.class_names
    missing = set(index.class_names) - set(known) if index.kind == "number" else set()
    if missing or not set(known) & set(index.class_names):
        raise ConfigError(
            f"the model in use as {name} and the data set "
            f"{'do not have the same numbers' if missing else 'have no class in common'}",
            f"{_listed(known)} in the model, {_listed(index.class_names)} here",
            "choose another name with --name or promotion.name; `headstart promote RUN --force` "
            "replaces it all the same",
        )


def check_metric(metric: str | None, index: DatasetIndex) -> str:
    """Name the figure that decides; refuse one that a data set's models do not have.

    Args:
        metric: Its name; None for the one that such models are known by.
        index: Index of the data set.

    Raises:
        ConfigError: Models of such data have no figure of this name.
    """
    known = JUDGES[index.kind].comparable
    if metric is not None and metric not in known:
        raise ConfigError(
            "there is no such metric for this kind of target",
            f"promotion.metric={metric}, and dataset.target is {index.kind}",
            f"choose one of {', '.join(known)}",
        )
    return metric or known[0]


def promote(
    run: Path,
    name: str,
    *,
    min_gain: float = 0.0,
    force: bool = False,
    metric: str | None = None,
) -> Any:
    """Make a run's model the one in use, if it is better.

    Args:
        run: Folder of a finished run, or of an earlier version.
        name: Name of the model in the registry.
        min_gain: By how much it must be better, see `Comparison`.
        force: Put it in use without comparing.
        metric: The figure that decides; the one that such models are known by where not given.

    Returns:
        (the new version or None where it was not promoted, a sentence that says why).

    Raises:
        ConfigError: The folder holds no finished run, or nothing can be compared.
    """
    check_name(name)
    check_run(run)
    if force:
        split, value, known_by = _recorded(run)
        with _promoting(name):
            registry = Registry(current_store())
            version = registry.add(name, run, split, value, None, True, known_by)
        return version, "promoted without comparing"
    source = dataset_of(run)
    index = index_of(dataset_stage(source))
    gain = Gain(min_gain, metric)
    version_or_none, comparison = promote_if_better(name, run, source, index, gain)
    return version_or_none, comparison.describe()


def promote_if_better(
    name: str, run: Path, source: DatasetConfig, index: DatasetIndex, gain: Gain
) -> tuple[Version | None, Comparison]:
    """Compare a run's model with the one in use, and put it in that one's place if it is better.

    No other promotion of this name comes between: the model that is replaced is the one that was
    compared with.

    Args:
        name: Name of the model in the registry.
        run: Folder of a finished run.
        source: Where its images are.
        index: The data set as it is now.
        gain: By what, and how much, the new model must be better.

    Returns:
        (the new version or None where the model is not better, what `compare` says).

    Raises:
        ConfigError: Nothing can be compared.
    """
    with _promoting(name):
        comparison = compare_with_model_in_use(name, run, source, index, gain)
        if not comparison.is_better:
            return None, comparison
        registry, before = Registry(current_store()), comparison.value_in_use
        told = comparison.split, comparison.value, before, False, comparison.metric
        added = registry.add(name, run, *told)
    return added, comparison


def _promoting(name: str) -> AbstractContextManager[None]:
    """Hold the lock under which the model in use under a name is read and replaced."""
    return current_store().lock(f"promotion/{name}")


def _doubt(version: Path, source: DatasetConfig) -> str:
    """Say why the model in use may have been trained on images that are held out now."""
    try:
        before = dataset_of(version)
    except ConfigError:
        return "it is not known how the images of the model in use were split"
    differing = [name for name in _SPLITTING if getattr(before, name) != getattr(source, name)]
    if not differing:
        return ""
    fields = " and ".join(f"dataset.{name}" for name in differing)
    return f"the model in use was trained with another {fields}, maybe on some of these images too"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MAX_SHOWN
    return ", ".join(sorted(names)[:_MAX_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _folder(version: Version) -> Path:
    return Registry(current_store()).folder_of(version)


def _recorded(run: Path) -> tuple[Split | None, float | None, str]:
    """Return the figure that a run itself reports."""
    splits: tuple[Split, ...] = ("test", "val")
    try:
        metrics = read_sealed(run / RUN_FILE).get("metrics", {})
        for split in splits:
            if split in metrics:
                judge = judge_of(metrics[split])
                value = metrics[split][judge.main]
                return split, None if value is None else float(value), judge.main
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
        raise ConfigError(
            f"the run's {RUN_FILE} is not one that headstart wrote",
            f"{run / RUN_FILE}: {error}",
            "give the folder of another run, or train again: finished results are hits",
        ) from None
    return None, None, "accuracy"
