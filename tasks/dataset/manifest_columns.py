"""Which columns of a manifest hold paths, targets, splits and groups: found by name alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from headstart.config import DatasetConfig
from headstart.errors import DatasetError
from headstart.tasks.dataset.manifest_targets import TargetColumns, asked_twice, choose_columns
from headstart.tasks.dataset.printable import printable

_OTHER_NAMES = {
    "path": (
        *("filename", "file", "filepath", "image", "imagepath", "imagefile", "imagename", "img"),
        *("imgpath", "imgname", "imageid", "imgid", "imageindex", "imagelink", "photo", "picture"),
        *("fname", "filenames", "images", "uri", "url", "name", "idcode", "id"),
        *("studyinstanceuid", "sopinstanceuid"),
    ),
    "label": (
        *("class", "classname", "category", "target", "labels", "labelname", "classes", "classid"),
        *("tag", "tags", "genre", "genres", "findinglabels", "categories", "attributes"),
        *("y", "species", "breed", "diagnosis"),
    ),
    "split": (
        "set",
        "subset",
        "partition",
        "phase",
        "usage",
        "fold",
        "dataset",
        "isvalid",
        "isval",
        "istest",
        "istrain",
        "train",
    ),
}
"""What others call these columns, without spaces and underscores; named in errors and warnings,
never taken."""
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".gif", ".webp", ".tif", ".tiff", ".bmp", ".jp2", ".avif")
"""What the names of images end in, in lower case; not needed to be read as one."""


class Columns(NamedTuple):
    """Positions of the columns, from 0.

    Attributes:
        path: Column of the images' files.
        label: Column of the target, the first of several.
        split: Column of the split; None where there is none.
        targets: Kind of the targets, and the columns they stand in.
        places: Positions of all target columns in a row.
        group: Column of the group; None where there is none.
    """

    path: int
    label: int
    split: int | None
    targets: TargetColumns
    places: tuple[int, ...]
    group: int | None

    @property
    def read(self) -> tuple[int, ...]:
        """Of all columns that are read."""
        others = (self.path, self.split, self.group)
        return (*self.places, *(place for place in others if place is not None))


def find_columns(file: Path, names: list[str], config: DatasetConfig, notes: list[str]) -> Columns:
    """Find a manifest's columns by their names and the settings.

    Args:
        file: Path of the manifest, for messages.
        names: Names of its columns, in order.
        config: May say which columns hold paths, splits and targets.
        notes: Takes a line on a column that is like a split's and is not read.

    Raises:
        DatasetError: A column is missing, or there twice.
    """
    targets = choose_columns(file, names, config)
    if targets.kind != "class":
        return _find_targets(file, names, config, notes, targets)
    told = {
        "path": config.path_column,
        "label": config.label_column,
        "split": config.split_column,
    }
    found = {
        column: _find_column(file, names, name or column, is_needed=name is not None)
        for column, name in told.items()
    }
    missing = [column for column in ("path", "label") if found[column] is None]
    if not any(names):
        raise DatasetError(
            "the manifest is empty",
            f"{file}: no header",
            "write path,label into its first line, and one image with its class into every further "
            "line",
        )
    if missing:
        raise DatasetError(
            "the manifest lacks a column: it needs path and label, and may have split",
            f"{file}: the columns {', '.join(map(printable, names)) or '(none)'}",
            _cure(names, missing),
        )
    _note_split(names, found["split"], notes)
    assert found["path"] is not None
    assert found["label"] is not None
    group = _group_column(file, names, config)
    places = (found["label"],)
    return Columns(found["path"], found["label"], found["split"], targets, places, group)


def _find_targets(
    file: Path, names: list[str], config: DatasetConfig, notes: list[str], targets: TargetColumns
) -> Columns:
    """Find the columns of labels or numbers, and those of path and split."""
    path = _find_column(file, names, config.path_column or "path", config.path_column is not None)
    if path is None:
        raise DatasetError(
            "the manifest lacks a column: it needs path",
            f"{file}: the columns {', '.join(map(printable, names)) or '(none)'}",
            _cure(names, ["path"]),
        )
    split = _find_column(
        file, names, config.split_column or "split", config.split_column is not None
    )
    _note_split(names, split, notes)
    places: list[int] = []
    for name in targets.names:
        place = _find_column(file, names, name, is_needed=True)
        assert place is not None
        if place in (path, split, *places):
            raise asked_twice(file, name)
        places.append(place)
    group = _group_column(file, names, config)
    return Columns(path, places[0], split, targets, tuple(places), group)


def _group_column(file: Path, names: list[str], config: DatasetConfig) -> int | None:
    name = config.group_column
    return None if name is None else _find_column(file, names, name, is_needed=True)


def _note_split(names: list[str], split: int | None, notes: list[str]) -> None:
    if split is None and (other := _known_as(names, "split")):
        text = f"the column {other} is not read; --set dataset.split_column={other} makes it the "
        notes.append(f"{text}split")


def _find_column(file: Path, names: list[str], wanted: str, is_needed: bool) -> int | None:
    same = [number for number, name in enumerate(names) if name == wanted]
    close = [n for n, name in enumerate(names) if name.strip().casefold() == wanted.casefold()]
    # One that the user names exactly is that one; else Path and path are two of one name.
    places = same if is_needed and len(same) == 1 else close
    if len(places) > 1:
        raise DatasetError(
            "the manifest has several columns of the same name",
            f"{file}: {len(places)} columns are called {wanted}, of {', '.join(names)}",
            "rename or remove all but the one that counts",
        )
    if not places and is_needed:
        raise DatasetError(
            f"the manifest has no column {printable(wanted)}",
            f"{file}: the columns {', '.join(map(printable, names)) or '(none)'}",
            "name one of these (dataset.path_column, dataset.label_column, dataset.split_column, "
            "dataset.group_column, dataset.label_columns, dataset.target_columns)",
        )
    return places[0] if places else None


def _known_as(names: Sequence[str], column: str) -> str | None:
    lowered = {
        name.casefold().replace(" ", "").replace("_", ""): name.strip() for name in reversed(names)
    }
    return next((lowered[other] for other in _OTHER_NAMES[column] if other in lowered), None)


def _cure(names: list[str], missing: list[str]) -> str:
    if any(name.casefold().endswith(IMAGE_ENDINGS) for name in names):
        return "add a header before the first line, which already describes an image: path,label"
    settings = [
        _setting(f"dataset.{column}_column={_known_as(names, column) or 'COLUMN'}")
        for column in missing
    ]
    others = (
        "; for columns of 0 and 1 there is dataset.label_columns, for numbers "
        "dataset.target_columns, instead of the label"
    )
    return (
        f"say which columns to use, {' '.join(settings)}; or rename them in the first line, "
        f"separated by commas, semicolons or tabs{others if 'label' in missing else ''}"
    )


def _setting(text: str) -> str:
    return f"--set '{text}'" if " " in text else f"--set {text}"
