"""What takes long to find out, remembered in the store beside what it is about.

Nothing here is a result: a file that is gone or damaged is found out again.
"""

import contextlib
from pathlib import Path
from typing import Any

from headstart.errors import RecordError
from headstart.tasks.store.artifacts import store_in_use
from headstart.tasks.store.files import write_text
from headstart.tasks.store.fingerprint import bytes_digest, digest

FOLDER = "remembered"
"""In the store; a folder of it for each kind of thing."""


def remembered(kind: str, about: Any) -> str | None:
    """Return the text that was remembered about something; None where there is none.

    Args:
        kind: What sort of text it is, for instance "backbones".
        about: All that decides the text; it has a canonical JSON.
    """
    path = _path(kind, about)
    if path is None:
        return None
    try:
        check, _, text = path.read_text(encoding="utf-8").partition("\n")
    except (OSError, UnicodeDecodeError):
        return None
    return text if check == bytes_digest(text.encode()) else None


def remember(kind: str, about: Any, text: str) -> None:
    """Keep a text for `remembered`, in the store in use, if there is one that can be written.

    Args:
        kind: What sort of text it is; looked up by this and `about`.
        about: All that decides the text: what it is looked up by.
        text: What to keep.
    """
    path = _path(kind, about)
    if path is None:
        return
    with contextlib.suppress(RecordError):  # it is only a memory
        write_text(path, f"{bytes_digest(text.encode())}\n{text}")


def _path(kind: str, about: Any) -> Path | None:
    store = store_in_use()
    return None if store is None else store.root / FOLDER / kind / digest(about)
