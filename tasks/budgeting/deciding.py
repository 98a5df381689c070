"""The stage that finds thresholds or intervals of a network that no val split had a part in.

They are read off the val images, once all else is decided; nothing is trained.
"""

from pathlib import Path
from typing import Any

from headstart.config import HeadConfig
from headstart.tasks.bottlenecks.features import Features
from headstart.tasks.dataset.stage import index_of
from headstart.tasks.head.stage import TRAINED_ON, HeadManifest, open_head
from headstart.tasks.running.stage import Made, Stage
from headstart.tasks.store.artifacts import artefact
from headstart.tasks.store.files import copy_files
from headstart.tasks.store.versions import arithmetic_versions


def _decide_key(features: Features, trained: HeadManifest, config: HeadConfig) -> dict[str, Any]:
    return {
        "trained": trained.key,
        "labels": index_of(features.dataset).labels_digest_of(TRAINED_ON),
        "min_precision": config.min_precision,
        **arithmetic_versions(),
    }


def _decide(folder: Path, features: Features, trained: HeadManifest, config: HeadConfig) -> Made:
    from headstart.tasks.head.training import decide

    rows = features.open(("val",))["val"]
    fit = decide(open_head(trained), rows, trained.fit, config)
    copy_files(artefact(trained, "."), folder)
    told = {name: getattr(trained, name) for name in _KEPT}
    return Made(len(rows), len(rows), fields={**told, "fit": fit})


_KEPT = ("num_classes", "history", "best_epoch", "stopped_early", "has_val", "kind", "penalty")


def _describe(made: HeadManifest) -> str:
    if made.fit.thresholds:
        return f"{len(made.fit.thresholds)} thresholds, set on the val images"
    return (
        "intervals, set on the val images"
        if made.fit.radius
        else "too few val images for intervals"
    )


stage = Stage("decided", 1, HeadManifest, _decide, _decide_key, _describe)
