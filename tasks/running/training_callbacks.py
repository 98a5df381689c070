"""Callbacks that a flow hands to the trainings of its stages."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any

_watchers: ContextVar[Callable[[], Sequence[Any]]] = ContextVar("headstart_watchers", default=tuple)


@contextlib.contextmanager
def watched_by(callbacks: Callable[[], Sequence[Any]]) -> Iterator[None]:
    """Give callbacks to every training of a stage inside the with block.

    They are in no stage's key: a watcher, such as the debugger's recorder, looks on and
    changes no result.

    Args:
        callbacks: Called by each stage that trains, and by no other: watchers import Keras.
    """
    token = _watchers.set(callbacks)
    try:
        yield
    finally:
        _watchers.reset(token)


def watchers() -> tuple[Any, ...]:
    """Return the callbacks of the `watched_by` around this, for stages that train something."""
    return tuple(_watchers.get()())
