"""Which command does without which kind of target, and why: one line a command.

Every command of the command line has its entry here, so that one that is added has to say it too
(tests/test_target_commands.py).
"""

from headstart.config import TargetKind
from headstart.errors import ConfigError

ALL: dict[TargetKind, str] = {}
"""A command that takes every kind of target, or never looks at them."""

WHY_NOT: dict[str, dict[TargetKind, str]] = {
    **dict.fromkeys(
        (
            *("train", "plan", "why", "predict", "evaluate", "finetune", "views"),
            *("demo", "config", "backbones", "cuts", "models", "up", "cache", "debug", "runs"),
            *("search", "bench", "retrain", "promote", "audit", "rank", "sweep", "explain"),
            *("scratch", "lr-find", "survey", "compare", "transferability"),
        ),
        ALL,
    ),
    "sources": {
        "labels": "P2L compares a source's classes",
        "number": "P2L compares a source's classes",
    },
}
"""By command, the kinds of targets that it does not take, each with the reason."""


def refuse_unsupported(command: str, kind: TargetKind) -> None:
    """Refuse a kind of target that a command does not take.

    Args:
        command: As it is typed.
        kind: Of the data set, or of the model.

    Raises:
        ConfigError: It does not take it; one line says why.
    """
    reason = WHY_NOT[command].get(kind)
    if reason:
        raise ConfigError(
            f"`headstart {command}` does not take targets that are {_NAMES[kind]}",
            f"dataset.target is {kind}: {reason}",
            "every command but this one takes every kind",
        )


_NAMES: dict[TargetKind, str] = {
    "class": "classes", "labels": "labels", "number": "numbers",
}  # fmt: skip
