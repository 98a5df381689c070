"""What a file of fewer bits costs: its accuracy on held-out images beside the pipeline's own."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from headstart.tasks.export.file_names import FILE_NAMES, Format
from headstart.tasks.export.runtimes import load_network
from headstart.tasks.progress import reporter

MAX_JUDGED = 1000
"""Held-out images that a quantised file is judged by, at the most."""
BATCH_ROWS = 32


class HeldOut(NamedTuple):
    """Images that a network did not train on.

    Attributes:
        split: Its name.
        views: uint8 [n, image_size, image_size, 3].
        rows: What the network takes for them, [n, *shape].
        labels: int [n].
    """

    split: str
    views: NDArray[np.uint8]
    rows: NDArray[Any]
    labels: NDArray[np.integer[Any]]


class Loss(BaseModel):
    """A quantised file's accuracy, and what it is to be compared with."""

    model_config = ConfigDict(frozen=True)

    split: str
    accuracy: float
    float_accuracy: float
    """Of the pipeline, on the same images."""
    num_images: int

    @property
    def lost(self) -> float:
        """Accuracy that the fewer bits cost; negative where they happen to help."""
        return self.float_accuracy - self.accuracy


def judge_quantised(folder: Path, kind: Format, network: Any, held_out: HeldOut) -> Loss:
    """Measure what a file's fewer bits cost.

    Args:
        folder: With the exported files.
        kind: The file's format.
        network: The head, rows to logits.
        held_out: Images to judge by.

    Returns:
        Both accuracies.
    """
    _, engine = load_network(folder / FILE_NAMES[kind])
    labels, right, wanted = held_out.labels, 0, 0
    with reporter().track(f"judging {kind}", len(labels), "images") as advance:
        for start in range(0, len(labels), BATCH_ROWS):
            part = slice(start, start + BATCH_ROWS)
            rows = held_out.rows[part].astype(np.float32)
            logits = np.asarray(network(rows, training=False))
            right += int((engine(held_out.views[part]).argmax(axis=1) == labels[part]).sum())
            wanted += int((logits.argmax(axis=1) == labels[part]).sum())
            advance(len(rows))
    made = Loss(
        split=held_out.split,
        accuracy=right / len(labels),
        float_accuracy=wanted / len(labels),
        num_images=len(labels),
    )
    reporter().note(
        f"     {FILE_NAMES[kind]}: {made.split} accuracy {made.accuracy:.4f} on "
        f"{made.num_images:,} images, {made.float_accuracy:.4f} in float32: "
        f"{100 * made.lost:.2f} points lost"
    )
    return made
