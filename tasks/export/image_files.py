"""Files to predict: named ones as they are named, and the images that folders hold."""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from headstart.errors import DatasetError
from headstart.tasks.dataset.decode import FORMATS, PREFIX_BYTES, looks_like_image, read_image
from headstart.tasks.dataset.layout import Place
from headstart.tasks.dataset.problems import Problem
from headstart.tasks.dataset.walking import FolderWalk

PICTURES = (
    *(".heic", ".heif", ".jxl", ".svg", ".psd", ".ico", ".tga", ".exr", ".hdr", ".dcm"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"),
)
"""What names of pictures end in that are in no format that is read: they are told of."""


class FoundFile(NamedTuple):
    """A file to predict, or what stood in the way of finding one.

    Attributes:
        path: As it was named, or below the folder that was named.
        problem: Why there is nothing to predict there; empty for a file.
    """

    path: str
    problem: str = ""


def find_images(paths: Iterable[str | os.PathLike[str]]) -> Iterator[FoundFile]:
    """Find files, one by one, in the order of the paths.

    Folders are walked as data sets are, but that links to files are followed wherever they lead.
    Files that are no images by their content are passed over, unless their name says that they
    should be one.

    Args:
        paths: Files and folders. A file is given on whatever it holds.

    Yields:
        Files, and problems: folders that cannot be read or hold no images, links that are not
        followed, FIFOs.
    """
    for path in (os.fspath(named) for named in paths):
        if Path(path).is_dir():
            yield from _walk(path)
        else:
            yield FoundFile(path)


def read_image_file(path: str | os.PathLike[str], max_pixels: int) -> bytes:
    """Read an image file whole.

    Args:
        path: Anything but a regular file is refused.
        max_pixels: Images with more pixels are refused.

    Raises:
        DatasetError: It cannot be read, is no image or too large; ``received`` is the reason in
            words that follow a path and a colon.
    """
    try:
        if Path(path).exists() and not Path(path).is_file():
            raise _unreadable("a folder, FIFO, socket or device, so it is not opened")
        with Path(path).open("rb") as file:
            return read_image(file, max_pixels)
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        if re.match(r"[a-z][a-z0-9+.-]+:/", os.fspath(path), re.IGNORECASE):
            reason = "an address: download the image, and give the local file"
        raise _unreadable(reason) from None
    except ValueError as error:  # a null character in the name
        raise _unreadable(str(error)) from None


def _unreadable(reason: str) -> DatasetError:
    return DatasetError("the image file cannot be read", reason, "check the path")


def _walk(top: str) -> Iterator[FoundFile]:
    told: list[FoundFile] = []

    def report(problem: Problem) -> None:
        told.append(FoundFile(str(Path(top, problem.path)), problem.reason))

    walk = FolderWalk(top, report, once=True)
    is_empty = True
    for place in walk.files_below(Place(Path(top).name, top, "")):
        is_empty = is_empty and not told
        yield from told
        told.clear()
        if _is_wanted(Path(place.file)):
            is_empty = False
            yield FoundFile(str(Path(place.file)))
    yield from told
    if is_empty and not told:
        yield FoundFile(top, "a folder without images")


def _is_wanted(path: Path) -> bool:
    # Plugins register their extensions as headstart.tasks.dataset.decode imports them.
    ending = path.suffix.lower()
    if Image.EXTENSION.get(ending) in FORMATS or ending in PICTURES:
        return True
    try:
        with path.open("rb") as file:
            return looks_like_image(file.read(PREFIX_BYTES))
    except OSError:
        return True  # it may be one: reading it will tell what is wrong
