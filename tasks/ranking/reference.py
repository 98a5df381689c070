"""Data sets as the reference model sees them, in whose space sources are compared."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from headstart.config import BottleneckConfig, DatasetConfig, ViewsConfig
from headstart.tasks.backbones.cuts import TOP
from headstart.tasks.bottlenecks.features import Features
from headstart.tasks.bottlenecks.pooled import pooled_features
from headstart.tasks.dataset.stage import DatasetManifest
from headstart.tasks.ranking.sources import REFERENCE, Source, p2l
from headstart.tasks.ranking.verdict import Candidate, SourceLine
from headstart.tasks.store.fingerprint import file_digest

VIEWS = ViewsConfig()
BOTTLENECKS = BottleneckConfig()
"""One size, one way of resizing and one cut for all data sets, or they could not be compared."""


def features_of(dataset: DatasetManifest, source: DatasetConfig) -> Features:
    """Say where the features of the top of `REFERENCE` lie."""
    return Features(dataset, source, VIEWS, REFERENCE, BOTTLENECKS.cut, BOTTLENECKS.dtype)


def mean_features(features: Features) -> npt.NDArray[np.float64]:
    """Average the training images' features in the reference model's space.

    Args:
        features: From `features_of`; they are in the store.

    Returns:
        float64 [C].
    """
    rows = features.open(("train",))["train"]
    mean: npt.NDArray[np.float64] = pooled_features(rows, np.arange(len(rows))).mean(
        axis=0, dtype=np.float64
    )
    return mean


def compare_sources(
    sources: Sequence[Source],
    target: npt.NDArray[np.float64],
    candidates: Sequence[Candidate],
) -> list[SourceLine]:
    """Set each source's P2L beside the accuracy that was measured with its model.

    Args:
        sources: Those in the store's registry.
        target: float64 [C], the target's mean features.
        candidates: Measured ones; those at the top of a source's model are looked for.
    """
    measured = {_model_digest(one.backbone): one.figure for one in candidates if one.cut == TOP}
    lines = []
    for source in sources:
        score, distance = p2l(source, target)
        lines.append(
            SourceLine(
                name=source.name,
                num_images=source.num_images,
                backbone=source.backbone,
                divergence=distance,
                p2l=score,
                accuracy=measured.get(source.model_sha256 or source.backbone),
            )
        )
    return lines


def _model_digest(backbone: str) -> str:
    """Return the SHA-256 of a model file, or the name of a backbone of the table."""
    path = Path(backbone)
    return file_digest(path) if path.is_file() else backbone
