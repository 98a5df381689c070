"""Promoting a model: only one that beats the one in use, on the same images."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.config import DatasetConfig, Split, load_config
from headstart.errors import ConfigError
from headstart.tasks import stages
from headstart.tasks.artifacts import current_store
from headstart.tasks.dataset.index import DatasetIndex
from headstart.tasks.dataset.stage import index_of
from headstart.tasks.export.judging import judge_split
from headstart.tasks.progress import reporter
from headstart.tasks.registry import Registry, Version, check_name, check_run
from headstart.tasks.run_folder import RUN_FILE


@dataclass(frozen=True)
class Comparison:
    """A new model against the one in use, on the same images.

    Attributes:
        split: The split that both were judged on.
        num_images: Images in it.
        accuracy: Of the new model, in [0, 1].
        accuracy_in_use: Of the model in use; None where there is none.
        min_gain: By how much the new one must be better.
    """

    split: Split
    num_images: int
    accuracy: float
    accuracy_in_use: float | None
    min_gain: float

    @property
    def is_better(self) -> bool:
        """Whether the new model may replace the one in use."""
        return self.accuracy_in_use is None or self.accuracy > self.accuracy_in_use + self.min_gain

    def describe(self) -> str:
        """Say in a sentence what was compared and what follows."""
        images = f"{self.num_images:,} {self.split} images"
        if self.accuracy_in_use is None:
            return f"promoted as the first: {100 * self.accuracy:.2f} % on {images}"
        verdict = "promoted" if self.is_better else "not promoted"
        needed = f", {100 * self.min_gain:.2f} % more were needed" if self.min_gain else ""
        return (
            f"{verdict}: {100 * self.accuracy:.2f} % against {100 * self.accuracy_in_use:.2f} % "
            f"of the model in use, on the same {images}{needed}"
        )


def compare(
    name: str, run: Path, source: DatasetConfig, index: DatasetIndex, min_gain: float
) -> Comparison:
    """Judge a run's model and the one in use on the same images, those neither was trained on.

    An image's split depends on its bytes, so an image that is held out now was held out when the
    model in use was trained, provided that it was there; the test split where there is one, since
    the val split has chosen the epoch.

    Args:
        name: Of the model.
        run: Folder of a finished run.
        source: Its data set.
        index: The data set as it is now.
        min_gain: By how much the new model must be better.

    Returns:
        Both accuracies.

    Raises:
        ConfigError: No images are held out.
    """
    splits: tuple[Split, ...] = ("test", "val")
    split = next((one for one in splits if index.rows_of(one)), None)
    if split is None:
        raise ConfigError(
            "Models are compared on images that were held out.",
            f"{source.images} has no test and no val split",
            "hold some out (dataset.test_fraction), or promote with --force",
        )
    in_use = Registry(current_store()).entry(name).in_use
    before = None
    if in_use is not None:
        reporter().note(f"judging version {in_use.number} of {name}, which is in use")
        before = judge_split(_folder(in_use), source, index, split)
    return Comparison(
        split, len(index.rows_of(split)), judge_split(run, source, index, split), before, min_gain
    )


def promote(run: Path, name: str, *, min_gain: float = 0.0, force: bool = False) -> Any:
    """Make a run's model the one in use, if it is better.

    Args:
        run: Folder of a finished run, or of an earlier version.
        name: Of the model.
        min_gain: By how much its accuracy must be higher, in [0, 1].
        force: Do not compare.

    Returns:
        (the new version or None where it was not promoted, a sentence that says why).

    Raises:
        ConfigError: The folder holds no finished run, or nothing can be compared.
    """
    check_name(name)
    check_run(run)
    registry = Registry(current_store())
    if force:
        split, accuracy = _recorded(run)
        return registry.add(name, run, split, accuracy, None, True), "promoted without comparing"
    source = load_config(file=run / "config.yaml").dataset
    comparison = compare(name, run, source, index_of(stages.dataset(source)), min_gain)
    return promote_if_better(name, run, comparison), comparison.describe()


def promote_if_better(name: str, run: Path, comparison: Comparison) -> Version | None:
    """Make a run's model the one in use where the comparison says so.

    Args:
        name: Of the model.
        run: Folder of a finished run.
        comparison: From `compare`.

    Returns:
        The new version; None where the model is not better.
    """
    if not comparison.is_better:
        return None
    return Registry(current_store()).add(
        name, run, comparison.split, comparison.accuracy, comparison.accuracy_in_use, False
    )


def _folder(version: Version) -> Path:
    return Registry(current_store()).folder_of(version)


def _recorded(run: Path) -> tuple[Split | None, float | None]:
    """Return the figure that a run itself reports."""
    splits: tuple[Split, ...] = ("test", "val")
    try:
        metrics = json.loads((run / RUN_FILE).read_text(encoding="utf-8")).get("metrics", {})
        for split in splits:
            if split in metrics:
                return split, float(metrics[split]["accuracy"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"A run's {RUN_FILE} is the one that headstart wrote.",
            f"{run / RUN_FILE}: {error}",
            "give the folder of another run, or train again: what is computed is a hit",
        ) from None
    return None, None
