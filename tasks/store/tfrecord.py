"""Plain TFRecord files of tf.train.Example, readable by anything that reads those."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.tasks.store.row_index import RowId


def write_tfrecord(
    path: Path, rows: Iterable[tuple[RowId, npt.NDArray[Any]]]
) -> npt.NDArray[np.int64]:
    """Write rows into a new TFRecord file.

    Args:
        path: Written in place, without a temporary file.
        rows: Address and tensor of each of n rows.

    Returns:
        int64 [n]: where in the file each tensor's bytes begin.
    """
    import tensorflow as tf

    offsets, position = [], 0
    with tf.io.TFRecordWriter(os.fspath(path)) as writer:
        for row_id, tensor in rows:
            data = np.ascontiguousarray(tensor).tobytes()
            feature = {
                "image_digest": _bytes_feature(row_id.image_digest.encode()),
                "view": tf.train.Feature(int64_list=tf.train.Int64List(value=[row_id.view])),
                "tensor": _bytes_feature(data),
            }
            example = tf.train.Example(features=tf.train.Features(feature=feature))
            # Features are a map, whose order is otherwise another one in another process.
            record = example.SerializeToString(deterministic=True)
            writer.write(record)
            # A TFRecord frames each record with 12 bytes before and 4 behind. Source:
            # https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
            offsets.append(position + 12 + record.find(data))
            position += 12 + len(record) + 4
    return np.array(offsets, np.int64)


def scan_tfrecord(path: Path, row_bytes: int) -> tuple[list[RowId], npt.NDArray[np.int64]]:
    """Read which rows a file of `write_tfrecord` holds, each checked by its own checksum.

    Returns:
        Addresses of n rows; and int64 [n]: where in the file each tensor's bytes begin.

    Raises:
        ValueError: It is damaged, or no such file.
    """
    import tensorflow as tf

    row_ids, offsets, position = [], [], 0
    try:
        for record in tf.data.TFRecordDataset(os.fspath(path)).as_numpy_iterator():
            fields = tf.train.Example.FromString(record).features.feature
            data = fields["tensor"].bytes_list.value[0]
            if len(data) != row_bytes:
                raise ValueError(f"a row of {len(data)} bytes")
            digest = fields["image_digest"].bytes_list.value[0].decode("ascii")
            row_ids.append(RowId(digest, fields["view"].int64_list.value[0]))
            offsets.append(position + 12 + record.find(data))
            position += 12 + len(record) + 4
    except Exception as error:  # of TensorFlow and protobuf, whichever stumbles first
        raise ValueError(f"{path}: {error}") from None
    return row_ids, np.array(offsets, np.int64)


def _bytes_feature(value: bytes) -> Any:
    import tensorflow as tf

    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
