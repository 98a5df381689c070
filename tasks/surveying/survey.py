"""What a survey came to: a line for each backbone, as table, page and plots."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from headstart.tasks.evaluation.judges import JUDGES
from headstart.tasks.running.stage import Outcome
from headstart.tasks.runs.pages import write_csv, write_page
from headstart.tasks.surveying.anatomy import Anatomy
from headstart.tasks.surveying.measuring import Measurement


class Surveyed(BaseModel, frozen=True):
    """One backbone: what it is made of, how it runs here, and how well it serves."""

    anatomy: Anatomy
    measurements: tuple[Measurement, ...]
    """By batch size; empty where nothing was measured."""
    accuracy: float | None
    """Of a head on its top, on the user's images; None where it was not trained, or where targets
    are no classes."""
    metric: str = "accuracy"
    """What a head is judged by: accuracy, mAP (of labels) or R² (of numbers)."""
    value: float | None = None
    """mAP or R²; None where it is the accuracy."""

    @property
    def figure(self) -> float | None:
        """What a head on its top came to."""
        return self.accuracy if self.metric == "accuracy" else self.value

    @property
    def images_per_s(self) -> float | None:
        """At the batch size that runs fastest."""
        return max((one.images_per_s for one in self.measurements), default=None)


class SurveySummary(BaseModel, frozen=True):
    """What `headstart survey` came to; the object that ``--json`` prints."""

    run_dir: str
    report: str
    table: str
    """One line a backbone, as CSV."""
    cuts: str
    """One line a natural cut, as CSV."""
    stages: tuple[Outcome, ...]
    metrics: dict[str, Any]
    """backbones: a `Surveyed` each; judged: the split that heads were judged on."""
    seconds: float


COLUMNS = (
    "backbone", "image_size", "parameters", "backbone_parameters", "gflops", "depth",
    "num_features", "inference_mb", "training_mb",
)  # fmt: skip
CUT_COLUMNS = ("backbone", "cut", "activation", "bytes_per_image", "gflops_before")
NAMES = {judge.ranked_name: judge.ranked for judge in JUDGES.values()}
"""Of what heads are judged by, in tables."""


def table_rows(surveyed: Sequence[Surveyed]) -> list[dict[str, Any]]:
    """Lay out backbones as table rows, the cheapest by FLOPs first.

    Returns:
        Rows with `COLUMNS`, images_per_s_B and memory_mb_B for each batch size B, and
        what a head came to.
    """
    rows = []
    for one in sorted(surveyed, key=lambda one: one.anatomy.flops):
        row: dict[str, Any] = {
            "backbone": one.anatomy.name,
            "image_size": one.anatomy.image_size,
            "parameters": one.anatomy.num_parameters,
            "backbone_parameters": one.anatomy.num_backbone_parameters,
            "gflops": one.anatomy.flops / 1e9,
            "depth": one.anatomy.depth,
            "num_features": one.anatomy.num_features,
            "inference_mb": one.anatomy.inference_bytes / 1e6,
            "training_mb": one.anatomy.training_bytes / 1e6,
        }
        for measured in one.measurements:
            row[f"images_per_s_{measured.batch_size}"] = measured.images_per_s
            used = measured.memory_bytes
            row[f"memory_mb_{measured.batch_size}"] = None if used is None else used / 1e6
        row[NAMES[one.metric]] = one.figure
        rows.append(row)
    return rows


def write_survey(
    folder: Path,
    title: str,
    surveyed: Sequence[Surveyed],
    judged: str | None,
    plots: Sequence[tuple[str, str]],
    outcomes: Sequence[Outcome],
) -> tuple[Path, Path, Path]:
    """Write the page and the tables.

    Args:
        folder: The run's folder.
        title: Heading of the page.
        surveyed: Backbones with what was measured of them.
        judged: The split that heads are judged on; None without any.
        plots: (caption, ``data:`` URI) each.
        outcomes: How the stages went.

    Returns:
        The paths of survey.html, survey.csv and cuts.csv.
    """
    rows = table_rows(surveyed)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    table = write_csv(folder / "survey.csv", rows, columns)
    cuts = write_csv(
        folder / "cuts.csv",
        [
            {
                "backbone": one.anatomy.name,
                "cut": cut.name,
                "activation": "x".join(map(str, cut.activation_shape)),
                "bytes_per_image": cut.bytes_per_image,
                "gflops_before": cut.flops_before / 1e9,
            }
            for one in surveyed
            for cut in one.anatomy.cuts
        ],
        CUT_COLUMNS,
    )
    page = write_page(
        folder / "survey.html",
        Path(__file__).parent / "survey.html.j2",
        title=title,
        rows=rows,
        batch_sizes=_batch_sizes(surveyed),
        surveyed=sorted(surveyed, key=lambda one: one.anatomy.flops),
        judged=judged,
        heading=heading(surveyed),
        measured=NAMES[surveyed[0].metric],
        plots=plots,
        stages=outcomes,
    )
    return page, table, cuts


def heading(surveyed: Sequence[Surveyed]) -> str:
    """Name what heads are judged by."""
    metric = surveyed[0].metric
    return "Accuracy" if metric == "accuracy" else metric


def _batch_sizes(surveyed: Sequence[Surveyed]) -> list[int]:
    return sorted({one.batch_size for network in surveyed for one in network.measurements})
