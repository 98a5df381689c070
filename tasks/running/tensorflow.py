"""Importing TensorFlow, which takes seconds, when it is needed and without its noise."""

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

CUDA_DEVICE = Path("/dev/nvidiactl")
NOISE = re.compile(
    r"^(WARNING: All log messages before absl|I0000 |W0000 |"
    r"To enable the following instructions|I \S+ |"
    r"E0000 .*(failed call to cuInit|Unable to register cu|computation_placer))"
)
"""What TensorFlow says at every start on a machine without a GPU; none of it asks for action."""


@contextlib.contextmanager
def quiet_tensorflow() -> Iterator[None]:
    """Import TensorFlow inside this with block to be spared what it says at every start.

    TensorFlow writes to file descriptor 2 before its log level is read, so the descriptor is
    turned aside for the length of the import, and what is not known noise is written after it.
    On a machine with a GPU nothing is held back: there the lines say whether it was found.
    """
    # 3: oneDNN calls it an error when it leaves float16 to another implementation.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2" if CUDA_DEVICE.exists() else "3")
    if CUDA_DEVICE.exists() or "tensorflow" in sys.modules:
        yield
        return
    # In memory: there may be no folder for temporary files.
    with open(os.memfd_create("tensorflow"), "w+b") as aside:  # noqa: PTH123
        sys.stderr.flush()
        real = os.dup(2)
        os.dup2(aside.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(real, 2)
            os.close(real)
            aside.seek(0)
            for line in aside.read().decode(errors="replace").splitlines():
                if line.strip() and not NOISE.match(line):
                    print(line, file=sys.stderr)


@contextlib.contextmanager
def absent(*names: str) -> Iterator[None]:
    """Make packages look as if they were not installed, unless they are imported already."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


def import_tensorflow() -> None:
    """Import TensorFlow and look for devices, quietly.

    Keras imports scikit-learn and pyplot where they are installed, for wrappers and plots that
    no command uses; that would be a second at every start.
    """
    with quiet_tensorflow(), absent("sklearn", "matplotlib"):
        import tensorflow as tf

        tf.config.list_physical_devices()
