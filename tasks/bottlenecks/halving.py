"""Batches that do not fit into memory: computed in halves, and those that follow as well."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from headstart.errors import BackboneError
from headstart.tasks.progress import reporter

Pixels = npt.NDArray[np.uint8]
OUT_OF_MEMORY = (tf.errors.ResourceExhaustedError, MemoryError)


class Halving:
    """Computes batches, in parts once a batch has not fit.

    Args:
        compute: From some batches uint8 [n, height, width, 3] to the outputs [n, ...] of each; it
            raises one of `OUT_OF_MEMORY` where there is too little for all of them.
    """

    def __init__(self, compute: Callable[[Sequence[Pixels]], Sequence[Sequence[Any]]]) -> None:
        self._compute = compute
        self._part: int | None = None

    def __call__(self, batches: Sequence[Pixels]) -> Sequence[Sequence[Any]]:
        """Compute batches.

        Raises:
            BackboneError: There is too little memory for one image.
        """
        largest = max(len(batch) for batch in batches)
        while True:
            part = largest if self._part is None else min(self._part, largest)
            try:
                if part == largest:
                    return self._compute(batches)
                # One batch after another, whatever the number of devices: memory is short.
                return [self._in_parts(batch, part) for batch in batches]
            except OUT_OF_MEMORY as error:
                if part == 1:
                    raise _too_little(batches[0], error) from None
                self._part = part // 2
            reporter().note(
                f"out of memory: the backbone continues with {self._part} images at a time (set "
                f"bottlenecks.batch_size={self._part} to start with that)"
            )

    def _in_parts(self, batch: Pixels, part: int) -> Sequence[Any]:
        done = [
            self._compute([batch[start : start + part]])[0] for start in range(0, len(batch), part)
        ]
        with tf.device("CPU:0"):
            return [tf.concat(outputs, axis=0) for outputs in zip(*done, strict=True)]


def _too_little(batch: Pixels, error: Exception) -> BackboneError:
    _, height, width, _ = batch.shape
    reason = str(error).strip().partition("\n")[0]
    return BackboneError(
        "there is too little memory to send one image through the backbone",
        f"{height} x {width} pixels: {reason or type(error).__name__}",
        "end other programs, choose a smaller backbone (`headstart backbones`), or an earlier cut",
    )
