"""Addresses of views: which rows the images of a data set have, of pixels and of bottlenecks."""

from collections.abc import Iterable

from headstart.tasks.store.records import RowId

PLAIN = 0
"""The view that evaluation uses."""


def plain_rows(digests: Iterable[str]) -> list[RowId]:
    """Address view 0 of images."""
    return [RowId(digest, PLAIN) for digest in digests]


def augmented_rows(digests: Iterable[str], num_augmented: int) -> list[RowId]:
    """Address the augmented views of images, image by image."""
    return [RowId(digest, view) for digest in digests for view in range(1, num_augmented + 1)]
