"""Where the images of a manifest lie whose paths lead nowhere: the settings that would find them.

Other people's manifests leave out endings and folders, or name those of another machine. Nothing
is taken for granted: what was found is said, and the user decides.
"""

import itertools
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from headstart.tasks.dataset.layout import Place
from headstart.tasks.dataset.printable import printable
from headstart.tasks.dataset.walking import FolderWalk

_MAX_ASKED = 50
"""Missing images that are looked for; what is true of them is true of the others."""
_MAX_SEEN = 200_000
"""Files that are looked at."""
_MAX_UP = 3
"""Folders above the root that are tried."""


def advise(root: Path, missing: Sequence[str], suffix: str) -> str:
    """Say which settings would find images that are not where a manifest says.

    Args:
        root: The folder that paths start at.
        missing: Paths as the manifest has them.
        suffix: What is put behind each already.

    Returns:
        Settings of the command line; empty where nothing was found.
    """
    asked = [text.strip().replace("\\", "/") for text in missing[:_MAX_ASKED]]
    above = _look_above(root, [text + suffix for text in asked])
    if above is not None:
        return _setting("root", str(above))
    names = {PurePosixPath(text).name + end for text in asked for end in {"", suffix}} - {""}
    found = _look_below(root, names)
    advice = Counter(
        _settings(root, text, suffix, place)
        for text in asked
        for place in [_first(found, PurePosixPath(text).name, suffix)]
        if place is not None
    )
    return next((text for text, _ in advice.most_common(1)), "")


def _look_above(root: Path, paths: Sequence[str]) -> Path | None:
    folder = root.absolute()
    for parent in list(folder.parents)[:_MAX_UP]:
        for path in paths:
            if not os.path.isabs(path) and (parent / path).is_file():  # noqa: PTH117 - of text
                return parent
    return None


def _look_below(root: Path, names: set[str]) -> dict[str, PurePosixPath]:
    """Find files of these names, or of these names and an ending, anywhere below a folder."""
    found: dict[str, PurePosixPath] = {}
    walk = FolderWalk(str(root), lambda problem: None, once=True)
    files = walk.files_below(Place(root.name, str(root), ""))
    for place in itertools.islice(files, _MAX_SEEN):
        for name in (place.name, place.name.rpartition(".")[0]):
            if name in names:
                found.setdefault(name, PurePosixPath(place.path))
    return found


def _first(found: dict[str, PurePosixPath], name: str, suffix: str) -> PurePosixPath | None:
    return found.get(name + suffix) or found.get(name)


def _settings(root: Path, text: str, suffix: str, place: PurePosixPath) -> str:
    """Write the settings that turn a path of the manifest into the place of its file."""
    wanted = PurePosixPath(text)
    ending = place.name.removeprefix(wanted.name)
    told = list(wanted.parts)
    told[-1] = place.name
    num_same = 0
    while num_same < min(len(told), len(place.parts)) and (
        told[-1 - num_same] == place.parts[-1 - num_same]
    ):
        num_same += 1
    folder = root.joinpath(*place.parts[: len(place.parts) - num_same])
    settings = []
    if num_same < len(told):
        kept = "/".join(wanted.parts[len(told) - num_same :])
        settings.append(_setting("strip_prefix", text.removesuffix(kept)))
    if folder != root:
        settings.append(_setting("root", str(folder)))
    if ending != suffix:
        settings.append(_setting("path_suffix", ending or '""'))
    return " ".join(settings)


def _setting(name: str, value: str) -> str:
    text = f"dataset.{name}={printable(value)}"
    return f"--set '{text}'" if " " in text or '"' in text else f"--set {text}"
