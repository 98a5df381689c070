"""Files written whole or not at all, and copied as if they were new."""

import contextlib
import json
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from headstart.errors import RecordError
from headstart.tasks.store.sealing import seal


def write_text(path: Path, text: str) -> Path:
    """Write a text file aside, then rename it: a file that is there is whole.

    Args:
        path: Of the file; an earlier one is replaced, and folders that are missing are made.
        text: What it will hold, as UTF-8.

    Raises:
        RecordError: The file cannot be written.
    """
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A new file: in a folder of several users, a link may lie where one is expected.
        with aside.open("x", encoding="utf-8", errors="backslashreplace", newline="") as file:
            file.write(text)
        aside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise RecordError(
            "the results cannot be written",
            f"{path}: {error.strerror or error}",
            "choose another output folder, or free disk space",
        ) from error
    return path


def write_json(path: Path, value: Any) -> Path:
    """Write JSON as `write_text` writes text; a mapping with its checksum, for `read_sealed`."""
    sealed = seal(value) if isinstance(value, dict) else value
    return write_text(path, json.dumps(sealed, indent=1) + "\n")


def copy_files(source: Path, target: Path) -> None:
    """Copy a folder's files, with the modes that new files and folders have where they go.

    Args:
        source: Folder to copy from, with all below it.
        target: Made where it is not there; keeps its mode where it is.
    """
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.rglob("*")):
        copy = target / path.relative_to(source)
        if path.is_dir():
            copy.mkdir(exist_ok=True)
        else:
            shutil.copyfile(path, copy)


@contextlib.contextmanager
def without_wildcards(path: Path) -> Iterator[Path]:
    """Reach a folder under a name without signs that TensorFlow takes for a pattern's.

    It looks for the variables of a SavedModel by a pattern, and so finds none in a folder that is
    called ``run [1]``.

    Yields:
        The path, or a link to it.
    """
    if not set(str(path)) & set("[]{}*?\\"):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="headstart-") as folder:
        link = Path(folder) / "link"
        link.symlink_to(path.absolute())
        yield link
