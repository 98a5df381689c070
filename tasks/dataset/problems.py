"""What can be wrong with image data: one line each, nothing is lost silently."""

import errno
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple, get_args

from headstart.errors import DatasetError
from headstart.tasks.dataset.decode import Flaw
from headstart.tasks.dataset.printable import printable

ProblemKind = Literal[
    Flaw,
    "unreadable",  # no permission, an I/O error, gone meanwhile
    "symlink",  # leads out of the root, nowhere, or in a circle
    "special_file",  # a FIFO, socket or device
    "bad_name",  # not UTF-8
    "stray_file",  # lies in no class folder
    "empty_class",
    "manifest_line",  # a line of a manifest that says nothing usable
    "missing",  # named by a manifest, not there
    "label_conflict",  # one content or path, two labels
    "straddling_duplicate",  # one content in two given splits
    "divided_group",  # images that belong together in several given splits
    "listed_twice",
    "few_images",  # a class or split left thin by the split
    "excluded",  # named by a list of the user's
    "unmet_exclusion",  # named by such a list, and not there
    "split_name",  # a folder taken for a split by its name
    "own_output",  # a folder that headstart wrote
    "doubtful_name",  # classes that look alike, or like a missing value
    "decoder_note",  # what a decoder said of a file that is used
    "repaired_path",  # a path or a cell of a manifest that was not, or not surely, taken as meant
]
"""What can be wrong with a file, a folder, a manifest line or a class."""

PROBLEM_KINDS: tuple[ProblemKind, ...] = get_args(ProblemKind)
"""All kinds, in the order in which they are told."""

KIND_WORDS: dict[ProblemKind, str] = {
    "zero_byte": "empty file",
    "not_an_image": "not an image",
    "too_large": "too large",
    "truncated": "truncated",
    "corrupt": "corrupt",
    "pixel_type": "unsupported pixel type",
    "unreadable": "unreadable",
    "symlink": "symbolic link",
    "special_file": "special file",
    "bad_name": "name is not UTF-8",
    "stray_file": "in no class folder",
    "empty_class": "empty class",
    "manifest_line": "unusable manifest line",
    "missing": "missing",
    "label_conflict": "under two labels",
    "straddling_duplicate": "duplicate in a held-out split",
    "divided_group": "group in several splits",
    "listed_twice": "listed twice",
    "few_images": "thin class or split",
    "excluded": "excluded by a list",
    "unmet_exclusion": "lines of the list that name no image",
    "split_name": "folders used as splits",
    "own_output": "folders that headstart wrote",
    "doubtful_name": "doubtful class names",
    "decoder_note": "used, despite decoder warnings",
    "repaired_path": "notes on how the manifest is read",
}
"""Each kind in words that follow a number."""


_PASSING = frozenset(
    (
        *(errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EREMOTEIO),
        *(errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH),
        *(errno.ECONNABORTED, errno.ECONNREFUSED, errno.ECONNRESET, errno.ESHUTDOWN),
        *(errno.EAGAIN, errno.EBUSY, errno.EMFILE, errno.ENFILE, errno.ENOMEM),
    )
)
"""What a network file system says while its server is away; EIO also a disk that is failing; and
what a machine says whose files or memory are all taken."""


FOLLOWING_LINKS = "dataset.allow_outside=true"
"""The setting that follows links out of a folder of images; their problems name it."""


class Problem(NamedTuple):
    """One thing the reader should know about the data.

    Attributes:
        path: Path relative to the root in POSIX style, a place such as "labels.csv line 7", or a
            class name.
        reason: The problem in words that follow the path and a colon.
        left_out: True where something is not in the data set because of it; False for a warning.
    """

    path: str
    kind: ProblemKind
    reason: str
    left_out: bool = True

    def __str__(self) -> str:
        return f"{printable(self.path)}: {printable(self.reason)}"

    @property
    def is_remark(self) -> bool:
        """Whether it leaves nothing out, and is no decoder's word on one file."""
        return not self.left_out and self.kind != "decoder_note"

    def to_dict(self) -> dict[str, Any]:
        """Return the problem as JSON data: what leaves nothing out says so."""
        fields = {"path": printable(self.path), "reason": printable(self.reason)}
        return fields if self.left_out else {**fields, "left_out": False}


def links_first(problems: Iterable[Problem], cure: str) -> str:
    """Put what follows the links that lead out of the folder before other advice."""
    if not any(one.kind == "symlink" and FOLLOWING_LINKS in one.reason for one in problems):
        return cure
    return (
        f"--set {FOLLOWING_LINKS} follows the links that lead out of the folder; otherwise {cure}"
    )


def refuse_passing(error: OSError, path: str) -> None:
    """Go no further where a file server or a disk fails, be it for a moment.

    What is left out because of that would change the data set, and what was computed of it.

    Args:
        error: What reading a file or a folder raised.
        path: The file or the folder.

    Raises:
        DatasetError: It is such a failure; a stage that ends so is tried again.
    """
    if error.errno in _PASSING:
        raise DatasetError(
            "an image could not be read",
            f"{printable(path)}: {error.strerror}",
            "run the command again; if a file fails every time, fix it or remove it from the "
            "folder",
        ) from error
