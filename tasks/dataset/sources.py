"""The data sets that have a name: where their files are, and what their bytes must be.

A copy on this machine is used first: in the folder the user names, or where Debian's packages
and earlier downloads put them. Otherwise each file is downloaded once by Keras's ``get_file``,
which refuses bytes that do not have the SHA-256 that stands here.

The hashes are those under which many projects publish these files. Debian's copy of Fashion-MNIST
holds the same values under other gzip headers, so a local copy is read by its format, not by its
hash.
"""

import contextlib
import os
import sys
import urllib.error
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.errors import DatasetError
from headstart.tasks.dataset.cifar import LAYOUTS, find_cifar
from headstart.tasks.dataset.idx import find_idx

LOCAL_FOLDERS = (Path("/usr/share/datasets"), Path("~/.cache/headstart-datasets"))
"""Where copies lie: Debian's packages (dataset-fashion-mnist), and what was downloaded."""
DIGITS = tuple("0123456789")
FASHION = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
"""Source: https://github.com/zalandoresearch/fashion-mnist, "Labels"."""


@dataclass(frozen=True)
class NamedSource:
    """A data set that has a name.

    Attributes:
        name: What the command line calls it.
        url: Address of the folder that its files lie in.
        sha256: SHA-256 of each file to download, by the file's name.
        class_names: Names in the order of the labels; empty where a file of the data set has them.
        flips: Whether a mirror image is as good as the image.
    """

    name: str
    url: str
    sha256: dict[str, str]
    class_names: tuple[str, ...] = ()
    flips: bool = True

    @property
    def is_idx(self) -> bool:
        """Whether its files are IDX; else they are CIFAR's binary version."""
        return self.name not in LAYOUTS

    def find(self, folder: Path) -> Path | None:
        """Return the folder that holds all files, this one or one below it; None without any."""
        if self.is_idx:
            return folder if find_idx(folder) else None
        places = (folder, *sorted(folder.glob("*_extracted")))  # get_file's name for an archive
        found = (find_cifar(place, LAYOUTS[self.name]) for place in places)
        return next((place for place in found if place is not None), None)


_IDX_FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)


def _idx_hashes(*hashes: str) -> dict[str, str]:
    return dict(zip(_IDX_FILES, hashes, strict=True))


_SOURCES = (
    NamedSource(
        "fashion-mnist",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        _idx_hashes(
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
        FASHION,
    ),
    NamedSource(
        "mnist",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        _idx_hashes(
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
        DIGITS,
        flips=False,
    ),
    NamedSource(
        "cifar10",
        "https://www.cs.toronto.edu/~kriz/",
        {
            "cifar-10-binary.tar.gz": (
                "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
            )
        },
    ),
    NamedSource(
        "cifar100",
        "https://www.cs.toronto.edu/~kriz/",
        {
            "cifar-100-binary.tar.gz": (
                "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec"
            )
        },
    ),
)
SOURCES: dict[str, NamedSource] = {source.name: source for source in _SOURCES}
"""Every named data set."""


def locate(source: NamedSource, data: Path | None = None) -> Path:
    """Find a data set's files, or download them.

    Args:
        source: Name, files and addresses of the data set.
        data: The only folder to look in, where the user has named one.

    Raises:
        DatasetError: The named folder lacks files, or a download failed or was not the right
            file.
    """
    if data is not None:
        found = source.find(data.expanduser())
        if found is None:
            raise _incomplete(source, data)
        return found
    for parent in LOCAL_FOLDERS:
        found = source.find(parent.expanduser() / source.name)
        if found is not None:
            return found
    return _download(source, LOCAL_FOLDERS[-1].expanduser())


def _download(source: NamedSource, parent: Path) -> Path:
    folder = parent / source.name
    try:
        # get_file falls back to a folder in /tmp where this one is not there.
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DatasetError(
            f"the files of {source.name} cannot be kept in {folder}",
            error.strerror or str(error),
            "give a folder that holds them with --data",
        ) from None
    for name, sha256 in source.sha256.items():
        _fetch(source, name, sha256, parent)
    found = source.find(folder)
    if found is None:
        raise _incomplete(source, folder)
    return found


def _fetch(source: NamedSource, name: str, sha256: str, parent: Path) -> None:
    import keras

    target = parent / source.name / name
    try:
        # Keras shows its progress on stdout, which is the results' place.
        with contextlib.redirect_stdout(sys.stderr):
            keras.utils.get_file(
                name,
                origin=f"{source.url}{name}",
                file_hash=sha256,
                hash_algorithm="sha256",
                cache_dir=os.fspath(parent),
                cache_subdir=source.name,
                extract=name.endswith(".tar.gz"),
            )
    except Exception as error:  # get_file raises a bare Exception or ValueError
        target.unlink(missing_ok=True)
        if isinstance(error.__context__, urllib.error.HTTPError):
            error.__context__.close()  # its connection is open still
        raise _download_error(source, name, sha256, error) from None


def _download_error(source: NamedSource, name: str, sha256: str, error: Any) -> DatasetError:
    reason = str(error)
    if "hash" in reason or "corrupted" in reason:
        return DatasetError(
            f"the download of {source.url}{name} does not have the SHA-256 {sha256}",
            "the file was cut short, or is a different one; it was not kept",
            "try again; if it persists, get the files elsewhere and give their folder with --data",
        )
    return DatasetError(
        f"{name} of {source.name} could not be downloaded from {source.url}",
        f"the download failed: {reason}",
        f"get the files elsewhere and give their folder with --data{_debian_hint(source)}",
    )


def _debian_hint(source: NamedSource) -> str:
    if source.name != "fashion-mnist":
        return ""
    return "; on Debian or Ubuntu: apt-get install dataset-fashion-mnist"


def _incomplete(source: NamedSource, folder: Path) -> DatasetError:
    if source.is_idx:
        wanted = f"{', '.join(_IDX_FILES)} (with or without .gz)"
    else:
        layout = LAYOUTS[source.name]
        files = [name for names in layout.files.values() for name in names]
        wanted = f"{', '.join(files)} and {layout.names_file}"
    return DatasetError(
        f"the folder of {source.name} does not hold {wanted}",
        f"{folder}: some are missing",
        "give the folder that holds them with --data, or leave --data out",
    )
