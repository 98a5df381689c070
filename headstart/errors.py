"""Every error headstart raises on purpose, as one tree.

Exception
└── HeadstartError          exit code 1
    ├── OutputError         1   standard output is closed or cannot be written
    ├── ConfigError         2   an option, a YAML field or a flow parameter is wrong
    ├── DatasetError        3   the image folder or manifest cannot be used
    ├── RecordError         4   the store or a shard cannot be used
    │   └── DamagedShardError   4   rows that were written are damaged or gone
    ├── BackboneError       5   a backbone, its weights or a cut cannot be used
    ├── TrainingError       6   a head could not be trained
    ├── ExportError         7   a model could not be exported or loaded
    └── ServiceError        8   a Prefect server or TensorBoard cannot be reached or started

The exit code is what the CLI leaves with. A message says what went wrong, what was received
(value and file) and what to do next.
"""

from headstart.addresses import without_secrets


class HeadstartError(Exception):
    """Base of all errors that headstart raises on purpose.

    Args:
        problem: What went wrong, without a capital or a full stop: "the manifest has no label".
        received: The value and the file that it went wrong with.
        next_step: What the reader should do about it, often a command.
    """

    exit_code = 1

    def __init__(self, problem: str, received: str = "", next_step: str = "") -> None:
        # What other programs' errors say of addresses and headers comes in here.
        self.problem = without_secrets(problem)
        self.received = without_secrets(received)
        self.next_step = without_secrets(next_step)
        super().__init__(
            "\n".join([self.problem, *(f"{name}: {text}" for name, text in self.details())])
        )

    def details(self) -> list[tuple[str, str]]:
        """Return the lines that follow the problem: what was received, and what to do next."""
        return [
            (name, text)
            for name, text in (("got", self.received), ("next", self.next_step))
            if text
        ]

    def _render_traceback_(self) -> list[str]:
        """Say in a notebook what went wrong, without the frames: IPython asks for this."""
        return [
            f"{type(self).__name__}: {self.problem}",
            *(f"  {name}: {text}" for name, text in self.details()),
        ]

    def to_dict(self) -> dict[str, str]:
        """Return the error as `--json` prints it."""
        parts = {"type": type(self).__name__, "problem": self.problem}
        return parts | {"got": self.received, "next": self.next_step}

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        """Survive pickling between processes with the three parts kept apart."""
        return type(self), (self.problem, self.received, self.next_step)


class OutputError(HeadstartError):
    """Standard output is closed, or it cannot be written."""


class ConfigError(HeadstartError):
    """An option, a YAML field or a flow parameter is wrong."""

    exit_code = 2


class DatasetError(HeadstartError):
    """The image folder or manifest cannot be used."""

    exit_code = 3


class RecordError(HeadstartError):
    """The store or one of its shards cannot be used."""

    exit_code = 4


class DamagedShardError(RecordError):
    """Rows that were written are damaged or gone; what is left of them was set aside."""


class BackboneError(HeadstartError):
    """A backbone, its weights or one of its cuts cannot be used."""

    exit_code = 5


class TrainingError(HeadstartError):
    """A head could not be trained."""

    exit_code = 6


class OutOfTimeError(HeadstartError):
    """A piece of work was ended because the time that it was given is up."""

    exit_code = 6


class ExportError(HeadstartError):
    """A model could not be exported or loaded."""

    exit_code = 7


class ServiceError(HeadstartError):
    """A Prefect server or TensorBoard cannot be reached or started."""

    exit_code = 8
