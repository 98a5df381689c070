"""What is remembered of a backbone."""

import shutil
from pathlib import Path

import pytest

from headstart.config import BackboneConfig
from headstart.errors import BackboneError
from headstart.tasks.backbones.backbone import load_backbone
from headstart.tasks.backbones.known import KnownBackbone, decides
from headstart.tasks.store.artifacts import Store
from headstart.tasks.store.remembered import FOLDER, remember, remembered
from tests.pipeline import Pipeline


def known(config: BackboneConfig, *, may_build: bool) -> KnownBackbone:
    def build() -> object:
        assert may_build, "it should have been remembered"
        return load_backbone(config)

    return KnownBackbone(config.name, decides(config, None), build)  # type: ignore[arg-type]


def test_what_is_remembered_is_what_the_backbone_says(pipeline: Pipeline, store: Store) -> None:
    config = BackboneConfig(name=str(pipeline.backbone))
    network = load_backbone(config)
    known(config, may_build=True).fingerprint("first")
    known(config, may_build=True).training_fingerprint()
    again = known(config, may_build=False)
    assert again.image_size == network.image_size
    assert [cut.name for cut in again.cuts] == [cut.name for cut in network.cuts]
    assert again.resolve_cut("first").activation_shape == (
        network.resolve_cut("first").activation_shape
    )
    assert again.fingerprint("first") == network.fingerprint("first")
    assert again.training_fingerprint() == network.training_fingerprint()
    with pytest.raises(BackboneError, match="cut"):
        again.resolve_cut("frist")


def test_a_file_that_was_moved_is_known_and_one_that_was_changed_is_not(
    pipeline: Pipeline, store: Store, tmp_path: Path
) -> None:
    config = BackboneConfig(name=str(pipeline.backbone))
    known(config, may_build=True)
    (tmp_path / "elsewhere").mkdir()
    moved = Path(shutil.copy(pipeline.backbone, tmp_path / "elsewhere" / pipeline.backbone.name))
    assert known(BackboneConfig(name=str(moved)), may_build=False).name == str(moved)
    with moved.open("ab") as file:
        file.write(b"\0")
    with pytest.raises(AssertionError, match="remembered"):
        known(BackboneConfig(name=str(moved)), may_build=False)


def test_another_configuration_or_library_is_not_known(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = BackboneConfig(name="lenet5", weights="random")
    first = decides(config, None)
    assert decides(config, None) == first
    assert decides(config.model_copy(update={"seed": 1}), None) != first
    assert decides(config, 64) != first
    monkeypatch.setattr(
        "headstart.tasks.backbones.known.arithmetic_versions", lambda: {"keras": "4"}
    )
    assert decides(config, None) != first


def test_a_damaged_memory_is_forgotten(store: Store) -> None:
    remember("things", {"a": 1}, "what it is")
    assert remembered("things", {"a": 1}) == "what it is"
    assert remembered("things", {"a": 2}) is None
    (file,) = (store.root / FOLDER / "things").iterdir()
    file.write_bytes(file.read_bytes().replace(b"what", b"whit"))
    assert remembered("things", {"a": 1}) is None


def test_a_store_that_cannot_be_written_remembers_nothing_new(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    (store.root / FOLDER).write_text("in the way")
    remember("things", "a", "text")
    assert remembered("things", "a") is None
