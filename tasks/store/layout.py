"""The file that makes a folder a store, and says how it is laid out."""

import uuid
from pathlib import Path
from typing import Any

from headstart.errors import RecordError
from headstart.tasks.store.sealing import read_sealed, sealed_text

STORE_LAYOUT = 1
LAYOUT_FILE = "store.json"
OWN_FOLDERS = {
    *("manifests", "artefacts", "rows", "runs", "index", "locks", "tmp", "set-aside"),
    *("models", "sources", "prefect", "service", "demo"),
}
"""All that headstart makes in a store's root, but `LAYOUT_FILE`."""
NOT_OURS = {"lost+found"}
"""What a new volume has in its root."""


def layout_of(path: Path) -> Any:
    """Return the layout that a store's file names; None where it is not there, or damaged.

    Raises:
        OSError: The file is there but cannot be read.
    """
    try:
        return read_sealed(path)["layout"]
    except (FileNotFoundError, ValueError, KeyError):
        return None


def begin_store(path: Path) -> None:
    """Write the layout's file of a new store, or of one that has lost this constant.

    Raises:
        RecordError: The folder holds something other than a store.
        OSError: It cannot be written.
    """
    names = {other.name for other in path.parent.iterdir()} - NOT_OURS
    # Another process may be at the same.
    others = {name for name in names if not name.lstrip(".").startswith(LAYOUT_FILE)}
    if not others <= OWN_FOLDERS and not path.exists():
        raise RecordError(
            "this folder is not a store, and it is not empty",
            f"{path.parent} holds other files",
            "choose another folder with --store or HEADSTART_STORE",
        )
    # Not by way of tmp/, from which another process may sweep.
    aside = path.with_name(f".{LAYOUT_FILE}.{uuid.uuid4().hex}")
    try:
        aside.write_text(sealed_text({"layout": STORE_LAYOUT}))
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
