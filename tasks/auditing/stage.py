"""The audit stage: findings about images and labels, from cached features and pictures."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from headstart.config import SPLITS, ChecksConfig
from headstart.tasks.auditing.duplicates import find_pairs
from headstart.tasks.auditing.findings import (
    KINDS,
    Finding,
    Images,
    class_findings,
    counted,
    duplicate_findings,
    label_findings,
    measured_findings,
)
from headstart.tasks.auditing.labels import judge_labels
from headstart.tasks.auditing.oddities import blur, isolation, robust_deviations, size_ratios
from headstart.tasks.auditing.pictures import PicturesManifest, open_pictures
from headstart.tasks.auditing.targets import Suspicions, judge_targets
from headstart.tasks.bottlenecks.features import Features
from headstart.tasks.bottlenecks.pooled import pooled_features
from headstart.tasks.bottlenecks.rows import LabelledRows
from headstart.tasks.dataset.stage import index_of
from headstart.tasks.head.solvers import LABELS_VERSION
from headstart.tasks.progress import reporter
from headstart.tasks.ranking.probes import probe_probabilities
from headstart.tasks.running.stage import Made, Stage
from headstart.tasks.runs.pages import write_csv
from headstart.tasks.store.artifacts import Manifest, artefact
from headstart.tasks.store.versions import arithmetic_versions, solver_versions
from headstart.tasks.views.addresses import plain_rows

FINDINGS, LABELS, EXCLUDE = "findings.csv", "labels.csv", "exclude.csv"
NUM_CHECKS = 5


class AuditManifest(Manifest):
    """What an audit found; its CSV files are those of the artefact."""

    counts: dict[str, int]
    """Findings of each kind."""
    num_excluded: int
    """Images that it suggests to leave out."""


def read_findings(audit: AuditManifest) -> list[Finding]:
    """Read an audit's findings, by kind, the most suspicious first."""
    path = artefact(audit, "findings.json")
    return [Finding.model_validate(one) for one in json.loads(path.read_text(encoding="utf-8"))]


def _audit_key(
    features: Features,
    pictures: PicturesManifest,
    config: ChecksConfig,
) -> dict[str, Any]:
    # Findings name paths, so a renamed file is another audit.
    return {
        "dataset": features.dataset.key,
        "pictures": pictures.key,
        "bottlenecks": features.collections.plain.recipe,
        "checks": config,
        **({"probe_version": LABELS_VERSION} if features.target.kind == "labels" else {}),
        **arithmetic_versions(),
        **solver_versions(),
    }


def _audit(
    folder: Path,
    features: Features,
    pictures: PicturesManifest,
    config: ChecksConfig,
) -> Made:
    index = index_of(features.dataset)
    images = Images(index)
    reader = features.collections.plain.select(plain_rows(index.digests))
    order = np.arange(len(images))
    values = pooled_features(LabelledRows((reader,), order[:, None], images.labels), order)
    looked = open_pictures(pictures)
    found: list[Finding] = []
    with reporter().track("auditing", NUM_CHECKS, "checks") as advance:
        if images.kind == "class":
            folds, seed = config.num_folds, config.seed
            told = probe_probabilities(values, images.labels, folds, seed, images.units)
            quality = judge_labels(told, images.labels)
            found += label_findings(images, quality)
            suggested = [images.class_names[int(label)] for label in quality.suggested]
            judged = Suspicions([], quality.margin, suggested, quality.is_error)
        else:
            judged = judge_targets(images, values, config)
            found += judged.findings
        advance(1)
        splits = np.array([SPLITS.index(row.split) for row in images.rows])
        pairs = find_pairs(values, looked.hashes, looked.mirrored_hashes, config, splits)
        found += duplicate_findings(images, pairs)
        advance(1)
        alone = np.log(np.maximum(isolation(values, config.num_neighbours), 1e-6))
        found += measured_findings(
            images, "outlier", robust_deviations(alone), config.max_deviations,
            "{value:.1f} robust standard deviations farther from its neighbours than the median "
            "image",
        )  # fmt: skip
        advance(1)
        found += _picture_findings(images, looked.sharpness, looked.brightness, config)
        advance(1)
        found += class_findings(index, config)
        advance(1)
    found.sort(key=lambda one: KINDS.index(one.kind))  # stable: the order within a kind stays
    _write(folder, images, judged, found)
    counts = {kind: sum(one.kind == kind for one in found) for kind in KINDS}
    excluded = {one.digest for one in found if one.exclude}
    return Made(
        len(images),
        len(images),
        fields={"counts": counts, "num_excluded": len(excluded)},
    )


def _picture_findings(
    images: Images, sharpness: Any, brightness: Any, config: ChecksConfig
) -> list[Finding]:
    widths = np.array([row.width for row in images.rows], np.int64)
    heights = np.array([row.height for row in images.rows], np.int64)
    return [
        *measured_findings(
            images, "blurred", blur(sharpness), config.max_deviations,
            "{value:.1f} robust standard deviations less sharp than the median image",
        ),
        *measured_findings(
            images, "dark", 1.0 - brightness, 1.0 - config.max_dark,
            "99 % of its pixels are at least {value:.0%} darker than white",
        ),
        *measured_findings(
            images, "odd_size", size_ratios(widths, heights), config.max_size_ratio,
            "its side or aspect ratio differs from the median by a factor of {value:.1f}",
        ),
    ]  # fmt: skip


def _write(folder: Path, images: Images, judged: Suspicions, found: list[Finding]) -> None:
    rows = [one.model_dump(mode="json") for one in found]
    (folder / "findings.json").write_text(json.dumps(rows), encoding="utf-8")
    write_csv(folder / FINDINGS, rows, tuple(Finding.model_fields))
    write_csv(folder / LABELS, _label_rows(images, judged), _LABEL_COLUMNS)
    reasons: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["exclude"]:
            reasons.setdefault(row["digest"], {**row, "reason": f"{row['kind']}: {row['detail']}"})
    write_csv(folder / EXCLUDE, list(reasons.values()), ("digest", "path", "reason"))


_LABEL_COLUMNS = ("path", "digest", "split", "label", "suggested_label", "margin", "is_error")


def _label_rows(images: Images, judged: Suspicions) -> list[dict[str, Any]]:
    """Lay out all images, the most suspicious label first."""
    return [
        {
            "path": images.rows[position].path,
            "digest": images.rows[position].digest,
            "split": images.rows[position].split,
            "label": images.told(images.rows[position]),
            "suggested_label": judged.suggested[position],
            "margin": f"{judged.margin[position]:.6f}",
            "is_error": bool(judged.is_error[position]),
        }
        for position in np.argsort(judged.margin, kind="stable").tolist()
    ]


def _describe_audit(audit: AuditManifest) -> str:
    told = [f"{count:,} {counted(kind, count)}" for kind, count in audit.counts.items() if count]
    return ", ".join(told) or "nothing suspicious"


stage = Stage("audit", 4, AuditManifest, _audit, _audit_key, _describe_audit)
