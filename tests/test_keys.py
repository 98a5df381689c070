"""A key says all that decides a result, and nothing else."""

import base64
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from headstart.config import (
    BackboneConfig,
    BaselineConfig,
    DatasetConfig,
    EvaluationConfig,
    HeadConfig,
    ScoringConfig,
    TuningConfig,
    ViewsConfig,
)
from headstart.tasks.bottlenecks.features import Features
from headstart.tasks.dataset import codecs
from headstart.tasks.dataset.index import DatasetIndex
from headstart.tasks.finetuning.trial import Trial, trial
from headstart.tasks.head.settings import settings_in_effect
from headstart.tasks.ranking.baseline import stage as baseline
from headstart.tasks.ranking.stage import stage as scores
from headstart.tasks.store.artifacts import Store
from headstart.tasks.store.fingerprint import digest
from tests.pipeline import save_backbone

DATASET: Any = SimpleNamespace(
    labels_digest="labels", images_digest="images", key="dataset", kind="class"
)
VIEWS = ViewsConfig()


def features(backbone: Path) -> Features:
    config = BackboneConfig(name=str(backbone))
    return Features(DATASET, DatasetConfig(images=Path("images")), VIEWS, config, "top", "float16")


def baseline_key(_: Path) -> dict[str, Any]:
    return baseline.key_fields(DATASET, VIEWS, 16, "val", 5.0, BaselineConfig())


def trial_key(backbone: Path, **tuning: Any) -> dict[str, Any]:
    return trial.key_fields(
        features(backbone),
        Trial(name="any"),
        TuningConfig(**tuning),
        HeadConfig(),
        EvaluationConfig(),
        Path("log"),
    )


@pytest.mark.parametrize(
    ("module", "key"), [("ranking.baseline", baseline_key), ("finetuning.trial", trial_key)]
)
def test_a_result_that_was_timed_is_of_its_machine(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, key: Any
) -> None:
    backbone = save_backbone(tmp_path / "net.keras")
    before = key(backbone)
    monkeypatch.setattr(
        f"headstart.tasks.{module}.machine_fingerprint", lambda: ["another", "machine", 4]
    )
    after = key(backbone)
    assert {name for name in before if before[name] != after[name]} == {"machine"}


def test_where_a_backbone_lies_decides_no_scores(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = DatasetIndex(("cat", "dog"), ())
    monkeypatch.setattr("headstart.tasks.ranking.stage.index_of", lambda _: nothing)
    one = save_backbone(tmp_path / "net.keras")
    (tmp_path / "elsewhere").mkdir()
    copy = shutil.copy2(one, tmp_path / "elsewhere" / "other.keras")
    keys = [
        digest(scores.key_fields(features(path), config))
        for path in (one, copy)
        for config in (ScoringConfig(), ScoringConfig(num_folds=4))
    ]
    assert keys[:2] == keys[2:]
    assert keys[0] != keys[1]


def test_settings_that_a_training_does_not_read_are_not_in_its_key(
    store: Store, tmp_path: Path
) -> None:
    assert settings_in_effect(HeadConfig(optimizer="adam")) == settings_in_effect(
        HeadConfig(optimizer="adamw", momentum=0.5)
    )
    assert settings_in_effect(HeadConfig(optimizer="sgd")) != settings_in_effect(
        HeadConfig(optimizer="sgd", momentum=0.5)
    )
    backbone = save_backbone(tmp_path / "net.keras")
    adamw = [trial_key(backbone, optimizer="adamw", momentum=value) for value in (0.5, 0.9)]
    sgd = [trial_key(backbone, optimizer="sgd", momentum=value) for value in (0.5, 0.9)]
    assert adamw[0] == adamw[1]
    assert sgd[0] != sgd[1]


def test_another_decoder_of_jpeg_2000_makes_other_views(monkeypatch: pytest.MonkeyPatch) -> None:
    codecs.codecs_digest.cache_clear()
    before, original = codecs.codecs_digest(), codecs.decode_image

    def decode(data: bytes, max_pixels: int) -> Any:
        pixels = original(data, max_pixels)
        if data.startswith(b"\xff\x4f\xff\x51"):  # the signature of a JPEG 2000 codestream
            pixels[0, 0, 0] ^= 1
        return pixels

    assert base64.b64decode(codecs._JPEG2000)[:4] == b"\xff\x4f\xff\x51"
    monkeypatch.setattr(codecs, "decode_image", decode)
    codecs.codecs_digest.cache_clear()
    assert codecs.codecs_digest() != before
    codecs.codecs_digest.cache_clear()
