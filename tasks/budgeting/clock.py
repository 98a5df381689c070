"""The time of a run that has so much and no more."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field

from headstart.errors import OutOfTimeError

_began_s: ContextVar[float | None] = ContextVar("headstart_command_began", default=None)


@contextlib.contextmanager
def counting_from_now() -> Iterator[None]:
    """Count a budget from here on: what is imported and opened first is part of the time."""
    token = _began_s.set(time.monotonic())
    try:
        yield
    finally:
        _began_s.reset(token)


@dataclass(frozen=True)
class Clock:
    """Counts a budget down from when the run began, or else from when it is made.

    Attributes:
        now: Clock to read, in seconds from any beginning.
    """

    seconds: float
    now: Callable[[], float] = time.monotonic
    _started_s: float = field(init=False)

    def __post_init__(self) -> None:
        """Begin to count."""
        began_s = _began_s.get() if self.now is time.monotonic else None
        object.__setattr__(self, "_started_s", self.now() if began_s is None else began_s)

    @property
    def spent_s(self) -> float:
        """Seconds since it began."""
        return self.now() - self._started_s

    @property
    def left_s(self) -> float:
        """Seconds that are left; below 0 where there are none."""
        return self.seconds - self.spent_s

    def keep(self, reserve_s: float, limit_s: float = math.inf) -> Callable[[], None]:
        """Return a check that ends a piece of work that begins now.

        Args:
            reserve_s: It raises OutOfTimeError once no more than this is left.
            limit_s: And once the work has taken longer than this.
        """
        began_s = self.now()

        def check() -> None:
            if self.left_s <= reserve_s:
                spent = f"{self.spent_s:,.0f} s of {self.seconds:,.0f}"
                raise OutOfTimeError("the time budget is used up", spent)
            if self.now() - began_s > limit_s:
                raise OutOfTimeError(f"not done after {self.now() - began_s:,.0f} s")

        return check
