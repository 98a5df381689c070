"""The child process of the survey: one JSON object a line on standard output.

    python -m headstart.tasks.surveying.child anatomy NAME...
    python -m headstart.tasks.surveying.child measure NAME BATCH_SIZES SECONDS

A process of its own, so that networks without weights leave nothing behind in Keras, and memory
that one network took is not counted for the next.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

from headstart.errors import BackboneError

_MAX_ERROR_LINES = 3


def run_child(*arguments: str) -> Iterator[str]:
    """Run the child, and hand on its lines as they come.

    Args:
        *arguments: Arguments of the command line above.

    Yields:
        Its lines of standard output.

    Raises:
        BackboneError: The child failed; the message has its last lines.
    """
    command = [sys.executable, "-m", __name__, *arguments]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
    with tempfile.TemporaryFile("w+") as errors:  # not a pipe, which would have to be emptied
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
        ) as child:
            try:
                assert child.stdout is not None
                yield from child.stdout
                code = child.wait()
            finally:
                child.kill()
        errors.seek(0)
        last = errors.read().strip().splitlines()[-_MAX_ERROR_LINES:]
    if code:
        raise BackboneError(
            "the backbone could not be built or run on this machine",
            f"{' '.join(arguments)}: exit code {code}: {' '.join(last)}",
            "leave it out of --backbones; if memory is short, --set measuring.batch_sizes=[1]",
        )


def main(arguments: Sequence[str]) -> None:
    """Do what the command line says."""
    task, *rest = arguments
    if task == "anatomy":
        from headstart.tasks.surveying.anatomy import dissect_all

        dissect_all(rest, _tell)
    else:
        name, batch_sizes, seconds = rest
        from headstart.tasks.surveying.measuring import measure

        measure(name, [int(size) for size in batch_sizes.split(",")], float(seconds), _tell)


def _tell(model: Any) -> None:
    print(model.model_dump_json(), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
