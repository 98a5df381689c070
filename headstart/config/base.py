"""What every configuration model shares: its base, and the kinds of values that several have."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Split = Literal["train", "val", "test"]
TargetKind = Literal["class", "labels", "number"]
"""What is learned of an image: its one class, any number of labels, or numbers."""
SPLITS: tuple[Split, ...] = ("train", "val", "test")

MAX_SEED = 2**32 - 1
"""NumPy's and Keras's largest seed."""
MAX_EPOCHS = 100_000
"""Far beyond any training that ends, and a history of so many epochs still fits into a page."""

Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
Epochs = Annotated[int, Field(ge=1, le=MAX_EPOCHS)]
Patience = Annotated[int, Field(ge=0, le=MAX_EPOCHS)]
BatchSize = Annotated[int, Field(ge=1, le=65_536)]
LearningRate = Annotated[float, Field(ge=1e-10, le=1e3)]
"""Beyond these a step is lost in float32's rounding, or the first one ends in infinities."""
WeightDecay = Annotated[float, Field(ge=0.0, le=1e3)]
Momentum = Annotated[float, Field(ge=0.0, le=0.9999)]
"""1 less a momentum of 0.99999 or more is lost in float32 beside a weight."""
DroppedShare = Annotated[float, Field(ge=0.0, le=0.99)]


def _check_path(value: Any) -> Any:
    if value == "" or (isinstance(value, str) and not value.strip()):
        # Path("") is the current folder, and an empty variable of a shell script rarely means it.
        raise ValueError("names no file or folder; write . for the current folder")
    if "\0" in str(value):
        raise ValueError("holds a NUL character, which no path can")
    first = str(value).partition("/")[0]
    if first.startswith("~") and first != "~" and os.path.expanduser(first) == first:  # noqa: PTH111
        raise ValueError(
            f"begins in the home folder of {first[1:]}, and there is no such user; "
            f"write ./{first} for a folder of that name"
        )
    return value


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


NameOrPath = Annotated[str, BeforeValidator(_as_text)]
"""A name, or the path of a file, which Python may give as such."""
NamedPath = Annotated[Path, BeforeValidator(_check_path)]
"""A path that was really given."""


class Config(BaseModel):
    """Frozen, closed base of every configuration model."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _refuse_switches_for_numbers(cls, fields: Any) -> Any:
        """Refuse true and false for a number: pydantic would take them for 1 and 0."""
        if isinstance(fields, dict):
            for name, value in fields.items():
                field = cls.model_fields.get(name)
                if isinstance(value, bool) and field and not _takes_bool(field.annotation):
                    word = "true" if value else "false"
                    raise ValueError(f"{name} is not a switch, so it cannot be {word}")
        return fields


def _takes_bool(annotation: Any) -> bool:
    """Say whether a field may be true or false, or holds something that numbers are not."""
    kinds = [getattr(kind, "__origin__", kind) for kind in get_args(annotation) or (annotation,)]
    return bool in kinds or not (int in kinds or float in kinds)
