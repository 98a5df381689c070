"""What `headstart sweep` and the sweep flow can be told: which heads are trained together."""

import itertools
import random
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from headstart.config.base import Config, Seed
from headstart.config.transfer import HeadConfig, TransferConfig

MAX_HEADS = 2000
"""Of one sweep."""
RANGE_VALUES = 4
"""Values of a range in a grid, where it does not say how many."""
SECTION = "head."

Values = tuple[Any, ...] | str


class SearchConfig(Config):
    """Which heads are tried, and what chooses among them."""

    grid: Annotated[dict[str, Values], Field(min_length=1)] = {
        "head.learning_rate": (1e-3, 3e-3, 1e-2, 3e-2),
        "head.weight_decay": (0.1, 0.3, 1.0, 3.0),
        "head.dropout": (0.1, 0.5),
    }
    """For each field of `head` that varies a list of values, or a range: 1e-4..1e-1 has four
    values, 1e-4..1e-1:7 has seven; evenly spaced in the logarithm, or, from 0, evenly."""
    num_random: int | None = Field(None, ge=1, le=MAX_HEADS)
    """Number of heads to draw at random, from the lists and from within the ranges, instead of
    trying every combination."""
    seed: Seed = 0
    """Seed of that draw, and of the choice of training images that are held out for selection."""


class SweepConfig(TransferConfig):
    """Everything that `headstart sweep` can be told."""

    search: SearchConfig = SearchConfig()

    @model_validator(mode="after")
    def _make_heads(self) -> "SweepConfig":
        self.budget.refuse("sweep")
        if self.head.kind not in ("linear", "mlp") or self.head.solver != "minibatch":
            raise ValueError("a sweep trains linear and mlp heads by minibatch, all at once")
        swept_heads(self)
        return self


def swept_heads(config: SweepConfig) -> tuple[HeadConfig, ...]:
    """Return the heads of a sweep, each once, in the order of its grid.

    Raises:
        ValueError: The grid names what is no field of a linear or MLP head, or a value that it
            cannot have, or makes too many heads.
    """
    search = config.search
    points = _draw(search) if search.num_random else _combine(search)
    heads = []
    for point in points:
        fields = {**config.head.model_dump(), **point}
        try:
            head = HeadConfig.model_validate(fields)
        except ValueError as error:
            values = ", ".join(f"{SECTION}{name}={value}" for name, value in point.items())
            raise ValueError(f"invalid head settings {values}: {_first_problem(error)}") from None
        if head.kind not in ("linear", "mlp") or head.solver != "minibatch":
            raise ValueError("a sweep trains linear and mlp heads by minibatch, all at once")
        heads.append(head)
    return tuple(dict.fromkeys(heads))


def swept_fields(config: SweepConfig) -> tuple[str, ...]:
    """Return the names of the fields of `head` that vary."""
    return tuple(name.removeprefix(SECTION) for name in config.search.grid)


def _first_problem(error: ValueError) -> str:
    return str(error.errors()[0]["msg"]) if isinstance(error, ValidationError) else str(error)


def _combine(search: SearchConfig) -> list[dict[str, Any]]:
    lists = {name: _values(name, given) for name, given in _named(search.grid).items()}
    count = 1
    for values in lists.values():
        count *= len(values)
    if count > MAX_HEADS:
        raise ValueError(
            f"the grid has {count:,} heads, but a sweep has at most {MAX_HEADS:,}; "
            "draw some of them with search.num_random (--random)"
        )
    return [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())]


def _draw(search: SearchConfig) -> list[dict[str, Any]]:
    generator = random.Random(search.seed)
    named = _named(search.grid)
    return [
        {name: _draw_one(name, given, generator) for name, given in named.items()}
        for _ in range(search.num_random or 0)
    ]


def _draw_one(name: str, given: Values, generator: random.Random) -> Any:
    if not isinstance(given, str):
        return generator.choice(_values(name, given))
    low, high, _ = _range(name, given)
    return _between(low, high, generator.random())


def _named(grid: Mapping[str, Values]) -> dict[str, Values]:
    for name in grid:
        field = name.removeprefix(SECTION)
        if not name.startswith(SECTION) or field not in HeadConfig.model_fields:
            raise ValueError(
                f"{name} is not a field of a head; for instance head.learning_rate, "
                "head.weight_decay, head.dropout"
            )
    return {name.removeprefix(SECTION): given for name, given in grid.items()}


def _values(name: str, given: Values) -> list[Any]:
    if not isinstance(given, str):
        if not given:
            raise ValueError(f"{SECTION}{name} has no value to try")
        return list(given)
    low, high, count = _range(name, given)
    if count == 1:
        return [low]
    return [_between(low, high, step / (count - 1)) for step in range(count)]


def _range(name: str, text: str) -> tuple[float, float, int]:
    try:
        ends, _, count = text.partition(":")
        low, high = map(float, ends.split(".."))
        number = int(count) if count else RANGE_VALUES
    except ValueError:
        low, high, number = 1.0, 0.0, 0
    if not (0 <= low <= high and 1 <= number <= MAX_HEADS):
        raise ValueError(
            f"{SECTION}{name} is a list of values, or a range such as 1e-4..1e-1 or "
            f"1e-4..1e-1:7, and not {text!r}"
        )
    return low, high, number


def _between(low: float, high: float, share: float) -> float:
    """Return what lies so far from low to high; four digits are enough to try."""
    value = low * (high / low) ** share if low > 0 else low + (high - low) * share
    return float(f"{value:.4g}")
