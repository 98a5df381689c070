"""What numpy itself warns of: the line of the user's that divided by zero or took a bad log.

No graph holds what Python does to the data, so for NaN that comes from there this is the only
witness.
"""

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from headstart.debug.callsites import CallSite, calling_site, is_users
from headstart.debug.diagnosis import Diagnosis
from headstart.debug.dump.causes import PYTHON_OPS
from headstart.debug.dump.dump import EXTERNAL_DATA

FROM_PYTHON = (*PYTHON_OPS, EXTERNAL_DATA, "IteratorGetNext", "Placeholder")
"""Types of the ops whose values were made outside of TensorFlow, or may have been."""
_TELLING = re.compile(r"divide by zero|invalid value|overflow encountered|empty slice|Degrees of")


@dataclass(frozen=True)
class NumpyWarning:
    """One warning.

    Args:
        message: What numpy said, such as ``divide by zero encountered in log``.
        file: The user's source file.
        line: The line in it.
    """

    message: str
    file: str
    line: int


class NumpyWarnings:
    """Keeps the first warning of numpy about a number that went bad in the user's own code."""

    def __init__(self) -> None:
        self.first: NumpyWarning | None = None

    def listen(self) -> None:
        """Listen from now on; warnings are shown as before."""
        show: Callable[..., None] = warnings.showwarning

        def note_and_show(
            message: Any, category: Any, filename: str, lineno: int, *rest: Any, **named: Any
        ) -> None:
            if self.first is None and _TELLING.search(str(message)):
                site = CallSite(filename, lineno) if is_users(filename) else calling_site()
                if site is not None:
                    self.first = NumpyWarning(str(message), site.file, site.line)
            show(message, category, filename, lineno, *rest, **named)

        warnings.showwarning = note_and_show


def explained(found: Diagnosis, warning: NumpyWarning | None) -> Diagnosis:
    """Point a finding about bad data at the line where numpy made it bad.

    Args:
        found: A finding from a dump.
        warning: What numpy warned of first in the same program; None where it did not.

    Returns:
        The finding, at that line where it is about values from outside of TensorFlow.
    """
    if warning is None or found.op_type not in FROM_PYTHON:
        return found
    return replace(
        found,
        cause=f'{found.cause.rstrip(".")}: numpy warned of "{warning.message}" here.',
        file=warning.file,
        line=warning.line,
        source_context=(),
        evidence={**found.evidence, "first_used_at": f"{found.file}:{found.line}"},
    ).with_source()
