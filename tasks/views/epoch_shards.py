"""TFRecord shards of one view of a whole data set, in the order in which an epoch reads it.

A record is a tf.train.Example that holds a block of images, not one: at 28 x 28 pixels a record's
own cost, in the pipeline and in parsing, is large beside its 784 bytes. Its features:

- ``pixels``: bytes, uint8 [rows, height, width, channels];
- ``positions``: bytes, little-endian int32 [rows], where in the data set each image stands.
  Labels are looked up by it: they are not in the shards, so relabelling costs nothing.

The images of a view are written in an order drawn over the whole set, so an epoch that reads the
shards as they lie sees a perfect shuffle with a few blocks in memory. An epoch that reads a view
a second time takes the blocks in another order.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from headstart.tasks.store.fingerprint import digest
from headstart.tasks.views.epoch_augment import EpochRecipe, epoch_views
from headstart.tasks.views.epoch_draws import as_uint64, block_order, view_key

EPOCH_VIEWS_VERSION = 1
"""Bump by hand when the same recipe gives other bytes."""
BLOCK_ROWS = 128
"""Most images a record: 100 kB at 28 x 28, so that a record's own cost is lost in its bytes, and
fine enough to shuffle by."""
BLOCK_BYTES = 2**20
"""Most bytes a record, unless one image has more: dozens of records are held to shuffle by."""
SHARD_BYTES = 16 * 2**20
"""A view of 60,000 small images makes three shards to interleave, one of CIFAR-10 ten."""
CHUNK_BLOCKS = 8
"""Blocks augmented in one call."""
RECORD_OVERHEAD_BYTES = 64 + 4 * BLOCK_ROWS
"""TFRecord's framing (16 bytes), Example's own bytes and the positions, an upper bound."""


class Layout(NamedTuple):
    """How a view is divided.

    Attributes:
        image_shape: Height, width and channels, in pixels.
    """

    num_rows: int
    image_shape: tuple[int, int, int]

    @property
    def block_rows(self) -> int:
        """Images a record; the last has fewer."""
        return max(1, min(BLOCK_ROWS, BLOCK_BYTES // int(np.prod(self.image_shape))))

    @property
    def num_blocks(self) -> int:
        """Records of a view."""
        return -(-self.num_rows // self.block_rows)

    @property
    def blocks_a_shard(self) -> int:
        """Records of a shard; the last has fewer."""
        block_bytes = self.block_rows * int(np.prod(self.image_shape))
        halves = -(-self.num_blocks // 2)  # two shards at least, so that there are some to mix
        return max(1, min(halves, SHARD_BYTES // block_bytes))

    @property
    def num_shards(self) -> int:
        """Shards of a view."""
        return -(-self.num_blocks // self.blocks_a_shard)

    @property
    def view_bytes(self) -> int:
        """Bytes of a view on disk, an upper bound."""
        pixels = self.num_rows * int(np.prod(self.image_shape))
        return pixels + self.num_blocks * RECORD_OVERHEAD_BYTES

    def shard_names(self) -> list[str]:
        """Return the names of a view's files, in order."""
        total = self.num_shards
        return [f"view-{number:05}-of-{total:05}.tfrecord" for number in range(total)]


def recipe_fields(recipe: EpochRecipe, seed: int, pixels_digest: str) -> dict[str, Any]:
    """Return everything that decides the bytes of a view, besides its number."""
    return {
        "version": EPOCH_VIEWS_VERSION,
        "pixels": pixels_digest,
        "padding": recipe.padding,
        "flip": recipe.flip,
        "cutout": recipe.cutout,
        "fill": list(recipe.fill) if recipe.cutout else [],
        "seed": seed,
    }


class ViewWriter:
    """Writes views of a data set; may be called from several threads.

    It computes on the CPU also where there is a GPU, which has the training to do.

    Args:
        images: uint8 [n, h, w, c], in memory or mapped.
        keys: uint64 [n], the images' keys.
        recipe: What a view is made by.
        fields: What `recipe_fields` says of the recipe.
    """

    def __init__(
        self,
        images: npt.NDArray[np.uint8],
        keys: npt.NDArray[np.uint64],
        recipe: EpochRecipe,
        fields: dict[str, Any],
    ) -> None:
        self.layout = Layout(len(images), tuple(images.shape[1:]))
        self._images, self._keys = images, keys
        self._digest = digest(fields)
        shape = [None, *images.shape[1:]]
        self._augment = tf.function(
            lambda block, keys, view: epoch_views(block, keys, view, recipe), autograph=False
        ).get_concrete_function(
            tf.TensorSpec(shape, tf.uint8),
            tf.TensorSpec([None], tf.uint64),
            tf.TensorSpec([], tf.uint64),
        )

    def write(self, folder: Path, view: int) -> None:
        """Write all shards of a view into a folder."""
        blocks = self._blocks(view)
        for number, name in enumerate(self.layout.shard_names()):
            start = number * self.layout.blocks_a_shard
            count = min(self.layout.blocks_a_shard, self.layout.num_blocks - start)
            with tf.io.TFRecordWriter(os.fspath(folder / name)) as writer:
                for _ in range(count):
                    writer.write(_record(*next(blocks)))

    def _blocks(self, view: int) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]]:
        order = block_order(self.layout.num_rows, view, self._digest)
        key = as_uint64([view_key(view, self._digest)])[0]
        block_rows = self.layout.block_rows
        chunk_rows = CHUNK_BLOCKS * block_rows
        with tf.device("CPU:0"):
            for start in range(0, len(order), chunk_rows):
                positions = order[start : start + chunk_rows]
                block = tf.constant(np.asarray(self._images[positions]))
                made = self._augment(block, as_uint64(self._keys[positions]), key).numpy()
                for row in range(0, len(positions), block_rows):
                    yield positions[row : row + block_rows], made[row : row + block_rows]


def read_blocks(paths: Sequence[Path] | Any, image_shape: tuple[int, int, int]) -> tf.data.Dataset:
    """Read the blocks of shards, one of each shard in turn.

    Args:
        paths: The shards, paths or a string tensor [shards].
        image_shape: Height, width and channels, in pixels.

    Returns:
        A dataset of (pixels uint8 [rows, h, w, c], positions int32 [rows]).
    """
    names = paths if isinstance(paths, tf.Tensor) else [os.fspath(path) for path in paths]
    files = tf.data.Dataset.from_tensor_slices(names)
    records = files.interleave(tf.data.TFRecordDataset, cycle_length=16, block_length=1)
    return records.map(lambda record: parse_block(record, image_shape))


def parse_block(record: Any, image_shape: tuple[int, int, int]) -> tuple[Any, Any]:
    """Read a record.

    Args:
        record: Scalar string tensor, a serialised Example.
        image_shape: Height, width and channels, in pixels.

    Returns:
        Pixels uint8 [rows, h, w, c] and positions int32 [rows].
    """
    features = {name: tf.io.FixedLenFeature([], tf.string) for name in ("pixels", "positions")}
    parsed = tf.io.parse_single_example(record, features)
    pixels = tf.reshape(tf.io.decode_raw(parsed["pixels"], tf.uint8), [-1, *image_shape])
    return pixels, tf.io.decode_raw(parsed["positions"], tf.int32)


def _record(positions: npt.NDArray[np.int64], pixels: npt.NDArray[np.uint8]) -> bytes:
    values = {"pixels": pixels.tobytes(), "positions": positions.astype("<i4").tobytes()}
    feature = {
        name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        for name, value in values.items()
    }
    example = tf.train.Example(features=tf.train.Features(feature=feature))
    data: bytes = example.SerializeToString()
    return data
