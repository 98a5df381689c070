"""Bottlenecks: what the frozen backbone computes for a view, kept for every later run."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.tasks.records import RowReader


@dataclass(frozen=True)
class LabelledRows:
    """The bottlenecks of one split, with their labels.

    Attributes:
        readers: Of the plain views, and of the augmented ones where there are any.
        positions: int64 [num_images, 1 + num_augmented]: where view v of an image lies in its
            reader (column 0 in the first reader, the others in the second).
        labels: int32 [num_images]: class of each image.
    """

    readers: tuple[RowReader, ...]
    positions: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int32]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    @property
    def num_augmented(self) -> int:
        """Augmented views an image."""
        return int(self.positions.shape[1]) - 1

    def gather(self, images: npt.NDArray[np.int64], view: int) -> npt.NDArray[Any]:
        """Read the bottlenecks of one view of some images.

        Args:
            images: int64 [n], positions in `labels`.
            view: 0 to num_augmented.

        Returns:
            [n, *activation shape] of the storage dtype.
        """
        return self.readers[min(view, 1)].gather(self.positions[images, view])
