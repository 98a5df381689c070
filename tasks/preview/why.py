"""Why each stage of a run would be a hit or a miss: which fields of its key changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.config import TransferConfig
from headstart.tasks.bottlenecks.features import Features
from headstart.tasks.bottlenecks.stage import stage as bottlenecks_stage
from headstart.tasks.dataset.problems import Problem
from headstart.tasks.evaluation.stage import stage as evaluation_stage
from headstart.tasks.export.stage import BehindBackbone
from headstart.tasks.export.stage import stage as export_stage
from headstart.tasks.head.stage import stage as head_stage
from headstart.tasks.preview.expected_hits import Outlook, Rows, look_ahead
from headstart.tasks.running.stage import Stage
from headstart.tasks.store.artifacts import artefact
from headstart.tasks.views.stage import stage as views_stage


@dataclass(frozen=True)
class StageReason:
    """Whether one stage would be a hit, and if not, what changed.

    Attributes:
        changes: (field of the key, old, new) against the nearest earlier artefact.
        remarks: Of the data set, what is left out and then what is worth a warning.
        remark_lines: The same for a terminal: some of each kind, and where all of them stand.
    """

    name: str
    status: str
    text: str
    changes: tuple[tuple[str, Any, Any], ...] = ()
    remarks: tuple[Problem, ...] = ()
    remark_lines: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the reason as JSON data, with its remarks as objects."""
        return {
            "name": self.name,
            "status": self.status,
            "text": self.text,
            "changes": self.changes,
            "remarks": [remark.to_dict() for remark in self.remarks],
        }


def explain_misses(config: TransferConfig) -> list[StageReason]:
    """Say for each stage of a run whether it would hit, and if not, which fields changed.

    Returns:
        One reason a stage, as far as the keys are known before anything is computed.
    """
    source, views, backbone, cut = config.dataset, config.views, config.backbone, config.bottlenecks
    outlook = look_ahead(config)
    dataset, size = outlook.dataset, outlook.network.image_size
    reasons = [
        _of_dataset(outlook),
        _of_rows(views_stage, (dataset, source, views, size, outlook.needed), outlook.views),
        _of_rows(bottlenecks_stage, (dataset, source, views, backbone, cut), outlook.bottlenecks),
    ]
    if not outlook.extracted:
        text = "not needed: all bottlenecks are there"
        reasons[1] = StageReason(views_stage.name, "hit", text)
    features = Features.of(dataset, config)
    head = head_stage.find(features, config.head, Path())
    reasons.append(_of_artefact(head_stage, features, config.head, Path()))
    if head is None:
        return [*reasons, *(StageReason(name, "miss", "follows the head") for name in LAST)]
    reasons.append(_of_artefact(evaluation_stage, features, head, config.evaluation))
    reasons.append(_of_artefact(export_stage, BehindBackbone(features), head, config.export))
    return reasons


LAST = ("evaluation", "export")
"""Stages whose keys hold that of the head."""


def _of_dataset(outlook: Outlook) -> StageReason:
    reading = outlook.reading
    text = outlook.dataset.headline
    if reading.rows_computed:
        text += f"; {reading.rows_computed:,} read now, which a later run will find"
    listed_in = str(artefact(outlook.dataset, "index.json"))
    lines = outlook.index.summary_lines(listed_in=listed_in)[1:]
    remarks = tuple(sorted(outlook.index.problems, key=lambda problem: not problem.left_out))
    return StageReason(reading.name, reading.status, text, remarks=remarks, remark_lines=lines)


def _of_rows(
    stage: Stage[..., Any], arguments: tuple[Any, ...], wanted: Sequence[Rows]
) -> StageReason:
    num_wanted = sum(rows.num_wanted for rows in wanted)
    num_missing = sum(len(rows.missing) for rows in wanted)
    if not num_missing:
        return StageReason(stage.name, "hit", f"all {num_wanted:,} rows are there")
    text = f"{num_missing:,} of {num_wanted:,} rows are missing"
    return StageReason(stage.name, "miss", text, stage.changes(*arguments))


def _of_artefact(stage: Stage[..., Any], *arguments: Any) -> StageReason:
    if (found := stage.find(*arguments)) is not None:
        return StageReason(stage.name, "hit", f"saves {found.duration_s:,.1f} s")
    if changes := stage.changes(*arguments):
        noun = "field" if len(changes) == 1 else "fields"
        text = f"{len(changes)} {noun} of its key changed"
        return StageReason(stage.name, "miss", text, changes)
    text = stage.explain(*arguments) or "there is nothing similar in the store"
    return StageReason(stage.name, "miss", text)
