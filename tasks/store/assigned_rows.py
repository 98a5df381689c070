"""The rows that the process which gives out the pieces expects of a worker.

Each builds the recipe of the rows for itself, from the libraries that it has. A worker with other
ones would write into a collection that nobody looks into, so that it asks first.
"""

from collections.abc import Iterable
from typing import NamedTuple, Self

import PIL

import headstart
from headstart.errors import ConfigError
from headstart.tasks.store.records import RowCollection
from headstart.tasks.store.versions import version_of


class ExpectedRows(NamedTuple):
    """Travels with a piece.

    Attributes:
        digests: Digests of the collections that the piece writes into.
        versions: Versions of the libraries here, for people.
    """

    digests: tuple[str, ...]
    versions: str

    @classmethod
    def of(cls, collections: Iterable[RowCollection]) -> Self:
        """Return what a worker is to make."""
        return cls(tuple(collection.digest for collection in collections), _versions())

    def check(self, collections: Iterable[RowCollection]) -> None:
        """Refuse, on a worker, to make rows that are not those asked for.

        Raises:
            ConfigError: This worker would make other rows, as another version of TensorFlow does.
        """
        if self.digests == tuple(collection.digest for collection in collections):
            return
        raise ConfigError(
            "a worker would compute different rows: it needs the same versions of TensorFlow, "
            f"Keras and Pillow, with its image codecs, as the main process ({self.versions}), and "
            "the same backbone file, if there is one",
            f"a worker with {_versions()}, whose rows would differ",
            "install the same versions of headstart, TensorFlow, Keras and Pillow on the workers "
            "as here, restart them, and run the command again",
        )


def _versions() -> str:
    return (
        f"headstart {headstart.__version__}, TensorFlow {version_of('tensorflow')}, "
        f"Keras {version_of('keras')}, Pillow {PIL.__version__}"
    )
