"""Explain images: heatmaps as files, all of them on one sheet, and what was seen as data."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel

from headstart.errors import ConfigError, DatasetError
from headstart.tasks.dataset.printable import printable
from headstart.tasks.explanation.grad_cam import Method, choose_layer, heatmaps
from headstart.tasks.explanation.overlay import overlay
from headstart.tasks.explanation.subject import Subject
from headstart.tasks.export.image_files import FoundFile, find_images
from headstart.tasks.progress import reporter
from headstart.tasks.store.disk_space import explain_full_disk
from headstart.tasks.views.contact_sheet import Tile, contact_sheet

BATCH_SIZE = 8
"""Views a pass; all activations of a batch are held for the gradient."""
MAX_SHEET_ROWS = 60
"""Images on the contact sheet; further ones have their own files."""
MAX_STEM_BYTES = 200
"""Of an overlay's name, which is 255 bytes at the most."""
SHEET_FILE = "contact_sheet.png"


class Explanation(BaseModel, frozen=True):
    """What was seen in one image.

    Attributes:
        label: Its likeliest class; of a model that tells numbers, the one that is explained.
        probability: Probability of that class; None of a number.
        explained: The class that the heatmap shows the evidence for.
        peak: Row and column of the strongest place, as shares of the view's height and width;
            None where there is no evidence for the class.
        overlay: The file with the heatmap over the view.
        value: The number that the model tells; None of a class.
    """

    path: str
    label: str
    probability: float | None
    explained: str
    layer: str
    peak: tuple[float, float] | None
    overlay: str
    value: float | None = None

    @property
    def said(self) -> str:
        """What the model says, in words."""
        if self.value is not None:
            return f"{self.label} {self.value:.4g}"
        return f"{self.label} {self.probability or 0.0:.1%}"


def explain_images(
    subject: Subject,
    paths: Sequence[Path],
    out: Path,
    layer: str | None = None,
    class_name: str | None = None,
    method: Method = "grad-cam",
    on_bad: Callable[[str, str], None] = lambda path, reason: None,
) -> list[Explanation]:
    """Write a heatmap over each image, and all of them on one sheet.

    Args:
        subject: The model, with what it takes to make a view.
        paths: Image files and folders.
        out: Folder for the pictures; made where it is not there.
        layer: Path or unique name of the layer; the last one with a map where None.
        class_name: What to look for; each image's likeliest class where None.
        method: Formula by which the channels are weighed, see `heatmaps`.
        on_bad: Called with the path of a file that cannot be used and the reason.

    Raises:
        DatasetError: Not one image could be used.
        ConfigError: There is no such layer or class, an image lies where the pictures go, or
            nothing can be written there.
    """
    wanted = None if class_name is None else subject.class_number(class_name)
    found = list(find_images(paths))
    _refuse_overwriting(out, found)
    with _writing_to(out):
        out.mkdir(parents=True, exist_ok=True)
    made: list[Explanation] = []
    rows: list[list[Tile]] = []
    taken = {SHEET_FILE}
    with reporter().track("explaining", len(found), "images") as advance:
        views = _views(subject, found, on_bad, advance)
        path: str | None = None
        while batch := list(islice(views, BATCH_SIZE)):
            path = path or choose_layer(subject.model, subject.batch([batch[0][1]]), layer)
            for explanation, tiles in _explain(subject, batch, out, path, wanted, method, taken):
                made.append(explanation)
                if len(rows) < MAX_SHEET_ROWS:
                    rows.append(tiles)
    if not made:
        raise DatasetError(
            "no image to explain was found",
            ", ".join(printable(str(path)) for path in paths),
            "give image files, or folders with some",
        )
    _save(contact_sheet(rows, columns_wide=2 if len(rows) > 1 else 1), out / SHEET_FILE)
    return made


def _refuse_overwriting(out: Path, found: Sequence[FoundFile]) -> None:
    """Keep pictures, which are named after their images, from replacing images."""
    folder = out.resolve()
    inside = [file.path for file in found if folder in _places(Path(file.path))]
    if inside:
        raise ConfigError(
            "--out holds images to explain, and pictures named after them would overwrite them",
            f"{printable(str(out))}, where {printable(inside[0])} lies",
            "choose another folder with --out",
        )


def _places(path: Path) -> tuple[Path, Path]:
    """Name the folder that an image's name stands in, and the one that its bytes lie in."""
    return path.parent.resolve(), path.resolve().parent


@contextmanager
def _writing_to(out: Path) -> Iterator[None]:
    with explain_full_disk(out):
        try:
            yield
        except OSError as error:
            raise ConfigError(
                "the folder of --out cannot be written",
                f"{printable(str(out))}: {error.strerror or error}",
                "choose another folder with --out",
            ) from None


def _save(picture: Image.Image, file: Path) -> None:
    """Write a picture aside, then rename it: a link of its name is replaced, not followed."""
    aside = file.with_name(".picture.part")
    with _writing_to(file.parent):
        aside.unlink(missing_ok=True)
        try:
            picture.save(aside, format="PNG")
            aside.replace(file)
        finally:
            aside.unlink(missing_ok=True)


def _views(
    subject: Subject,
    found: Sequence[FoundFile],
    on_bad: Callable[[str, str], None],
    advance: Callable[[int], None],
) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    for file in found:
        advance(1)
        if file.problem:
            on_bad(file.path, file.problem)
            continue
        try:
            yield file.path, subject.view(file.path)
        except DatasetError as error:
            on_bad(file.path, error.received)


def _explain(
    subject: Subject,
    batch: Sequence[tuple[str, NDArray[np.uint8]]],
    out: Path,
    layer: str,
    wanted: int | None,
    method: Method,
    taken: set[str],
) -> Iterator[tuple[Explanation, list[Tile]]]:
    classes = None if wanted is None else np.full(len(batch), wanted, np.int64)
    seen = heatmaps(
        subject.model, subject.batch([view for _, view in batch]), layer, classes, method,
        subject.tells_numbers,
    )  # fmt: skip
    for number, (path, view) in enumerate(batch):
        heat = seen.maps[number]
        row = seen.probabilities[number]
        likeliest, explained = int(seen.likeliest[number]), int(seen.classes[number])
        mixed = overlay(view, heat)
        file = _free_name(out, Path(path).stem, taken)
        _save(Image.fromarray(mixed), file)
        is_number = subject.tells_numbers
        label = subject.class_names[explained if is_number else likeliest]
        explanation = Explanation(
            path=path,
            label=label,
            probability=None if is_number else float(row[likeliest]),
            explained=subject.class_names[explained],
            layer=seen.layer,
            peak=_peak(heat),
            overlay=str(file),
            value=float(row[explained]) if is_number else None,
        )
        said = explanation.said if is_number else f"{label} {row[likeliest]:.0%}"
        shown = f"{explanation.explained}: {row[explained]:.0%}"
        if is_number:
            shown = f"what raises {label}"
        name = printable(Path(path).name)
        yield explanation, [Tile(view, f"{name}\n{said}"), Tile(mixed, shown)]


def _peak(heat: NDArray[Any]) -> tuple[float, float] | None:
    if not heat.any():
        return None
    row, column = np.unravel_index(int(heat.argmax()), heat.shape)
    return (float(row) + 0.5) / heat.shape[0], (float(column) + 0.5) / heat.shape[1]


def _free_name(out: Path, stem: str, taken: set[str]) -> Path:
    """Name an overlay after its image; a number tells images of one name in two folders apart."""
    # With room for a number and the ending: a name may be as long as a file system allows.
    name = printable(stem).encode()[:MAX_STEM_BYTES].decode(errors="ignore")
    names = (f"{name}{suffix}.png" for suffix in chain([""], (f"_{n}" for n in count(2))))
    free = next(each for each in names if each not in taken)
    taken.add(free)
    return out / free
