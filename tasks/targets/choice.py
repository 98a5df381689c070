"""The targets there are, by kind."""

from headstart.config import TargetKind
from headstart.tasks.targets.classes import Classes
from headstart.tasks.targets.labels import Labels
from headstart.tasks.targets.numbers import Numbers
from headstart.tasks.targets.target import Target

TARGETS: dict[TargetKind, Target] = {
    target.kind: target for target in (Classes(), Labels(), Numbers())
}
"""One object a kind; they have no state."""
