"""How a wrong configuration is told: every wrong field at once, in a user's words."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headstart.config import (
    DatasetConfig,
    HeadConfig,
    RankConfig,
    TransferConfig,
    build_config,
    load_config,
)
from headstart.config.loading import CONFIG_OF
from headstart.errors import ConfigError


def wrong(*settings: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config("photos", settings=settings)
    return [line.strip() for line in caught.value.received.splitlines() if line]


def test_all_wrong_fields_are_told_at_once() -> None:
    assert wrong("head.kind=mpl", "head.epochs=0", "head.speed=1") == [
        "head.kind: should be 'linear', 'mlp', 'tail', 'nearest_mean' or 'knn' (received mpl)",
        "head.epochs: should be greater than or equal to 1 (received 0)",
        "head.speed: there is no such field; did you mean seed?",
    ]


def test_a_value_is_shown_as_it_would_be_written() -> None:
    (line,) = wrong("dataset.val_fraction=0.9", "dataset.test_fraction=0.5")
    assert line.startswith("dataset: val_fraction + test_fraction must leave images to train on")
    assert line.endswith("(received {images: photos, test_fraction: 0.5, val_fraction: 0.9})")
    (line,) = wrong("head.hidden_units=[4, many]")
    assert "received many" in line
    (line,) = wrong("head.epochs=" + "9" * 50 + "x" * 200)
    assert len(line) < 250


@pytest.mark.parametrize(
    "setting",
    [
        "head.learning_rate=1e308",
        "head.learning_rate=1e-320",
        "head.weight_decay=1e9",
        "head.momentum=0.9999999999999999",
        "head.dropout=0.99999999",
        "head.epochs=18446744073709551616",
        "head.seed=18446744073709551616",
        "head.batch_size=3000000000",
        "head.patience=1e12",
        "head.hidden_units=[100000000]",
        "views.seed=4294967296",
        "backbone.seed=4294967296",
        "dataset.split_seed=4294967296",
        "dataset.max_pixels=9000000000000",
        "bottlenecks.num_parity_rows=1000000000",
        "evaluation.num_bootstrap=3000000000",
        "evaluation.num_calibration_bins=300000000",
        "evaluation.num_top_losses=1000000000",
        "evaluation.confidence=0.9999999999999999",
        "export.num_proof_images=1000000000",
        "views.augmentations=[{kind: random_resized_crop, max_aspect_ratio: 1e308}]",
    ],
)
def test_a_value_that_the_work_cannot_use_is_refused_by_its_field(setting: str) -> None:
    (line,) = wrong(setting)
    assert line.startswith(setting.partition("=")[0].partition(".")[0])
    assert "than" in line


def bounds(model: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every number of a configuration's JSON schema: its place and its schema."""
    schema = model.model_json_schema()
    for section in (schema, *schema.get("$defs", {}).values()):
        for name, field in section.get("properties", {}).items():
            parts = [field, *field.get("anyOf", []), field.get("items", {})]
            for part in parts:
                if part.get("type") in ("integer", "number"):
                    yield f"{section['title']}.{name}", part


@pytest.mark.parametrize("command", CONFIG_OF)
def test_every_number_of_a_configuration_has_two_bounds(command: str) -> None:
    for place, schema in bounds(CONFIG_OF[command]):
        assert {"minimum", "exclusiveMinimum"} & set(schema), place
        assert {"maximum", "exclusiveMaximum"} & set(schema), place


@pytest.mark.parametrize("setting", ["dataset.exclude=''", "dataset.root=' '"])
def test_an_empty_path_is_not_the_current_folder(setting: str) -> None:
    (line,) = wrong(setting)
    assert "names no file or folder" in line


def test_an_empty_folder_of_images_is_refused_from_python_and_from_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="names no file or folder"):
        load_config("")
    file = tmp_path / "config.yaml"
    file.write_text("dataset:\n  images: ''\n")
    with pytest.raises(ConfigError, match="names no file or folder"):
        load_config(file=file)


@pytest.mark.parametrize("value", ["true", "yes", "on", "off"])
def test_a_switch_is_no_number(value: str) -> None:
    assert "epochs is not a switch" in wrong(f"head.epochs={value}")[0]
    assert "learning_rate is not a switch" in wrong(f"head.learning_rate={value}")[0]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("dataset: {images: photos}\nhead: {epochs: 1}\nhead: {epochs: 2}\n", "head"),
        ("dataset: {images: photos}\nhead:\n  epochs: 1\n  seed: 3\n  epochs: 2\n", "epochs"),
        ("dataset:\n  images: photos\n  images: other\n", "images"),
    ],
)
def test_a_key_that_stands_twice_in_a_file_is_refused(tmp_path: Path, text: str, key: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=f"{key} appears twice"):
        load_config(file=file)
    with pytest.raises(ConfigError, match="a appears twice"):
        load_config("photos", settings=["dataset.split_names={a: val, a: test}"])


def test_digits_are_read_as_people_write_them() -> None:
    config = load_config("photos", settings=["head.seed=010", "dataset.images=2024-01-01"])
    assert config.head.seed == 10
    assert config.dataset.images == Path("photos")
    assert load_config(settings=["dataset.images=2024-01-01"]).dataset.images == Path("2024-01-01")


def test_images_and_settings_beat_a_configuration_made_in_python() -> None:
    base = TransferConfig(dataset=DatasetConfig(images=Path("a")), head=HeadConfig(epochs=3))
    config = load_config("b", settings=["head.seed=7"], base=base)
    assert (config.dataset.images, config.head.epochs, config.head.seed) == (Path("b"), 3, 7)
    assert load_config(base=base) == base


def test_a_backbone_may_be_given_as_a_path_and_a_folder_is_no_configuration(tmp_path: Path) -> None:
    config = load_config("photos", overrides={"backbone.name": tmp_path / "net.keras"})
    assert config.backbone.name == str(tmp_path / "net.keras")
    rank = build_config(RankConfig, "photos", overrides={"candidates.backbones": [Path("a.keras")]})
    assert rank.candidates.backbones == ("a.keras",)
    with pytest.raises(ConfigError) as caught:
        load_config(file=tmp_path)
    assert caught.value.received.startswith(f"{tmp_path}: a folder, FIFO, socket or device")


def test_one_setting_may_be_given_as_one_string() -> None:
    assert load_config("photos", settings="head.seed=7").head.seed == 7
