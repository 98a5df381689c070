"""What the tests of spreading have workers do; in a module that workers import in no time."""

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from headstart.errors import DatasetError

if TYPE_CHECKING:
    from headstart.tasks.bottlenecks.pieces import BottlenecksPiece
    from headstart.tasks.views.writing import ViewsPiece

ROWS_A_SHARD = 10


class Deadly(NamedTuple):
    """A piece that kills its worker, once or always.

    Attributes:
        number: What comes of it.
        grave: A file that is made by the first death; "" for pieces that kill nobody.
        always: Whether it kills the next worker too.
    """

    number: int
    grave: str = ""
    always: bool = False


def double(number: int) -> int:
    return 2 * number


def refuse(number: int) -> int:
    raise DatasetError("A number is even.", str(number), "double it")


def refuse_and_count(file: str) -> None:
    """Fail in a way that another try does not help, and leave a line."""
    with Path(file).open("a") as tries:
        tries.write("tried\n")
    raise DatasetError("a number is even", file, "double it")


def linger(number: int) -> None:
    """Tell the number of this process to whoever reads the driver's output, and stay."""
    print(os.getpid(), flush=True)
    signal.pause()


def survive(piece: Deadly) -> int:
    if piece.grave and (piece.always or not Path(piece.grave).exists()):
        Path(piece.grave).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return piece.number


def write_small_shards(piece: "ViewsPiece") -> int:
    from headstart.tasks.views.writing import write_piece

    _make_shards_small()
    return write_piece(piece)


def extract_and_die_once(piece: "BottlenecksPiece") -> int:
    """Write the shards, and before that is told, take the first worker along."""
    from headstart.tasks.bottlenecks.pieces import extract_piece

    _make_shards_small()
    count = extract_piece(piece)
    grave = Path(piece.store).parent / "grave"
    if not grave.exists():
        grave.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return count


def _make_shards_small() -> None:
    from headstart.tasks.store import records

    records.MIN_SHARD_ROWS = ROWS_A_SHARD
