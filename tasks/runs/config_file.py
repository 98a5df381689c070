"""A run's configuration in its folder, in the form that ``--config`` reads."""

from pathlib import Path
from typing import Any

import yaml

from headstart.config import (
    BackboneConfig,
    CandidatesConfig,
    Config,
    DatasetConfig,
    ScratchDatasetConfig,
    build_config,
)
from headstart.errors import ConfigError
from headstart.reading import MAX_CONFIG_BYTES, load_yaml, read_regular
from headstart.tasks.backbones.table import BACKBONES
from headstart.tasks.dataset.sources import SOURCES
from headstart.tasks.store.files import write_text

CONFIG_FILE = "config.yaml"
_NAMES = {*BACKBONES, *SOURCES, "pretrained", "random"}
"""What stands where a path could, and is none even where a file is called so."""


def write_config(folder: Path, config: Config) -> None:
    """Write a configuration with absolute paths: the same run from any working folder."""
    write_text(folder / CONFIG_FILE, yaml.safe_dump(_portable(config), sort_keys=False))


def read_config(folder: Path) -> Any:
    """Read what is written in a run's configuration, unchecked.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no text.
        yaml.YAMLError: It is no YAML, or too much of it.
    """
    return load_yaml(read_regular(folder / CONFIG_FILE, MAX_CONFIG_BYTES).decode())


def dataset_of(folder: Path) -> DatasetConfig:
    """Read which images a run in a folder was about.

    Raises:
        ConfigError: The folder does not say, or names what is neither a folder nor a manifest.
    """
    try:
        return DatasetConfig.model_validate(read_config(folder)["dataset"])
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise ConfigError(
            "the run does not say where its images are",
            f"{folder / CONFIG_FILE}: {str(error).splitlines()[0]}",
        ) from None


def is_run_of(model: type[Config], folder: Path) -> bool:
    """Say whether a run was begun in a folder; many a project has a config.yaml of its own."""
    try:
        build_config(model, file=folder / CONFIG_FILE)
    except ConfigError:
        return False
    return True


def _portable(value: Any) -> Any:
    """Give a configuration as JSON values."""
    if isinstance(value, Path):
        return str(value.expanduser().absolute())
    if not isinstance(value, Config):
        return [_portable(item) for item in value] if isinstance(value, tuple) else value
    fields = {name: _portable(item) for name, item in value}
    if isinstance(value, BackboneConfig):
        fields |= {"name": _absolute(value.name), "weights": _absolute(value.weights)}
    elif isinstance(value, CandidatesConfig):
        cuts = [text.rpartition(":") for text in value.cuts]
        fields |= {
            "backbones": [_absolute(name) for name in value.backbones],
            "cuts": [f"{_absolute(name)}{colon}{cut}" for name, colon, cut in cuts],
        }
    elif isinstance(value, ScratchDatasetConfig):
        fields["images"] = _absolute(value.images)
    return fields


def _absolute(name: str) -> str:
    path = Path(name).expanduser()
    return str(path.absolute()) if name and name not in _NAMES and path.exists() else name
