"""Folders that headstart itself wrote: among class folders they would become classes."""

import contextlib
from pathlib import Path

import yaml

from headstart.reading import load_yaml, read_regular

_MARKS: tuple[tuple[str, set[str]], ...] = (
    ("a store of headstart's", {"store.json", "locks"}),
    ("a store of headstart's", {"store.json", "tmp"}),
    ("a run of headstart's", {"run.json", "config.yaml"}),
    ("a run of headstart's", {"model.json", "labels.txt"}),
    ("an audit by headstart", {"findings.csv", "exclude.csv"}),
)
"""Files that a folder has together, and what it then is."""
_MAX_CONFIG_BYTES = 2**20


def own_output(folder: str, names: set[str]) -> str:
    """Say what headstart wrote into a folder.

    Returns:
        What it is, in words; empty where it is not headstart's.
    """
    for words, mark in _MARKS:
        if mark <= names:
            return words
    if "contact_sheet.png" in names and all(name.endswith(".png") for name in names):
        return "pictures of headstart explain"
    if "config.yaml" in names and _is_config(Path(folder) / "config.yaml"):
        return "a run of headstart's"
    return ""


def _is_config(path: Path) -> bool:
    """Tell whether a file is the configuration that a run writes when it begins."""
    with contextlib.suppress(OSError, ValueError, yaml.YAMLError):
        fields = load_yaml(read_regular(path, _MAX_CONFIG_BYTES).decode())
        dataset = fields.get("dataset") if isinstance(fields, dict) else None
        return isinstance(dataset, dict) and "images" in dataset
    return False
