"""Finding a cut by what a user calls it, of a network that was built or is only known."""

import difflib
from collections.abc import Sequence
from typing import Protocol, TypeVar

from headstart.errors import BackboneError


class _Named(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def layer(self) -> str: ...


AnyCut = TypeVar("AnyCut", bound=_Named)


def find_cut(backbone: str, cuts: Sequence[AnyCut], name: str) -> AnyCut:
    """Find a cut by name.

    Args:
        backbone: Name of the backbone, for the message.
        cuts: Its cuts, from input to output.
        name: "top", or the name of a layer after which it can be cut.

    Returns:
        The cut; the last layer's own name also means the top.

    Raises:
        BackboneError: There is no such cut; the message has the closest names.
    """
    for cut in reversed(cuts):
        if name in (cut.name, cut.layer):
            return cut
    names = [cut.name for cut in cuts]
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or names[-3:]
    raise BackboneError(
        f"{backbone} has no such cut: a cut is a layer that all paths from input to output pass "
        "through",
        f"{name!r}; did you mean {' or '.join(close)}?",
        f"`headstart cuts {backbone}` lists all {len(names)}",
    )
