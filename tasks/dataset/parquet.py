"""Columns of a Parquet file, within bounds: its encodings make a table of a few bytes endless."""

import errno
from pathlib import Path
from typing import Any

from headstart.reading import MAX_TABLE_BYTES

_CELL_BYTES = 8
"""Of a cell that holds nothing: what a list takes to point at it."""


def read_columns(file: Path, names: list[str]) -> Any:
    """Read some columns whole.

    Returns:
        A table of pyarrow's with these columns.

    Raises:
        OSError: It cannot be read, or means more than a table may hold.
        pyarrow.ArrowException: It is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = pq.read_schema(file)
    texts = [name for name in names if _is_text(kinds.field(name).type)]
    # Text stays as it is kept, each word once, until it is known how much it comes to.
    source = pq.ParquetFile(file, read_dictionary=texts)
    batches, size = [], 0
    for batch in source.iter_batches(columns=names):
        size += sum(map(_size, batch.columns))
        if size > MAX_TABLE_BYTES:
            reason = f"its cells take more than {MAX_TABLE_BYTES:,} bytes, so it is not read"
            raise OSError(errno.EFBIG, reason)
        batches.append(batch)
    return pa.Table.from_batches(batches) if batches else source.read(columns=names)


def _size(column: Any) -> int:
    import pyarrow.compute as pc
    import pyarrow.types as kinds

    size = _CELL_BYTES * len(column)
    if kinds.is_dictionary(column.type) and _is_text(column.type.value_type):
        lengths = pc.binary_length(column.dictionary).take(column.indices)
        return size + int(pc.sum(lengths).as_py() or 0)
    return size + int(column.nbytes)


def _is_text(kind: Any) -> bool:
    import pyarrow.types as kinds

    return bool(kinds.is_string(kind) or kinds.is_large_string(kind))
