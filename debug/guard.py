"""Nothing of the debugger's may raise into the program that it looks at.

Whatever is done inside a stranger's step, callback or import stands in a `harmless` block. What
fails there is kept, so that a report can say what was not seen.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from headstart.errors import TrainingError

failures: dict[str, str] = {}
"""What failed first in each part of the debugger in this process, by the part's name."""

_log = logging.getLogger("headstart.debug")


@contextmanager
def harmless(part: str) -> Iterator[None]:
    """Keep an exception from the program; the first of each part is logged.

    A BaseException passes: the debugger ends a program by one, and so does Ctrl-C.

    Args:
        part: Who is at work, such as ``the symptom rules``.
    """
    try:
        yield
    except TrainingError:  # ends a training on purpose, where its own flow asked for that
        raise
    except Exception as error:
        if part not in failures:
            failures[part] = f"{type(error).__name__}: {error}"
            _log.warning("%s saw less of this run: %r", part, error)
            _log.debug("where it failed", exc_info=True)
