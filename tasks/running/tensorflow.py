"""Importing TensorFlow, which takes seconds, when it is needed and without its noise."""

import contextlib
import importlib.util
import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

CUDA_DEVICE = Path("/dev/nvidiactl")
NOISE = re.compile(
    r"^(WARNING: All log messages before absl|I0000 |W0000 |"
    r"To enable the following instructions|I \S+ |"
    r"E0000 .*(failed call to cuInit|Unable to register cu|computation_placer))"
)
"""What TensorFlow says at every start on a machine without a GPU; none of it asks for action."""


@contextlib.contextmanager
def quiet_tensorflow(*, begun: bool = False) -> Iterator[None]:
    """Import TensorFlow inside this with block to be spared what it says at every start.

    TensorFlow writes to file descriptor 2 before its log level is read, so the descriptor is
    turned aside for the length of the import, and what is not known noise is written after it.
    On a machine with a GPU nothing is held back: there the lines say whether it was found.
    """
    # 3: oneDNN calls it an error when it leaves float16 to another implementation.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2" if CUDA_DEVICE.exists() else "3")
    if CUDA_DEVICE.exists() or ("tensorflow" in sys.modules and not begun):
        yield
        return
    with stderr_without(lambda line: not line.strip() or bool(NOISE.match(line))):
        yield


@contextlib.contextmanager
def stderr_without(is_noise: Callable[[str], bool]) -> Iterator[None]:
    """Hold back what C++ writes to file descriptor 2, and write what is not noise afterwards.

    Args:
        is_noise: Says of a line whether it is left out.
    """
    # In memory: there may be no folder for temporary files.
    with open(os.memfd_create("stderr"), "w+b") as aside:  # noqa: PTH123
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
                if not is_noise(line):
                    print(line, file=sys.stderr)


_exactness = threading.Lock()
_num_exact = 0
_took_tf32 = False


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Keep GPUs from rounding float32 to TF32 (10 bits of mantissa), which TensorFlow lets them do.

    For what is kept under a key that says float32, and for what is held against it: a machine with
    a GPU and one without find each other's rows, within the tolerance of the parity gate. Training
    may use TF32: nothing is compared with it.
    """
    global _num_exact, _took_tf32
    import tensorflow as tf

    config = tf.config.experimental
    with _exactness:  # workers may be threads, and the flag is the process's
        if not _num_exact:
            _took_tf32 = config.tensor_float_32_execution_enabled()
            config.enable_tensor_float_32_execution(False)
        _num_exact += 1
    try:
        yield
    finally:
        with _exactness:
            _num_exact -= 1
            if not _num_exact:
                config.enable_tensor_float_32_execution(_took_tf32)


@contextlib.contextmanager
def many_models() -> Iterator[None]:
    """Keep TensorFlow from warning of many traces, where many models are trained on purpose."""
    logger = logging.getLogger("tensorflow")

    def is_wanted(record: logging.LogRecord) -> bool:
        return "triggered tf.function retracing" not in record.getMessage()

    logger.addFilter(is_wanted)
    try:
        yield
    finally:
        logger.removeFilter(is_wanted)


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


def quieten_imports() -> None:
    """Have TensorFlow be quiet whoever imports it first in this process, and for what.

    The start of every command and of every worker: most import it somewhere on their way.
    """
    is_there = any(isinstance(finder, _QuietFinder) for finder in sys.meta_path)
    if not is_there and "tensorflow" not in sys.modules:
        sys.meta_path.insert(0, _QuietFinder())


class _QuietFinder(MetaPathFinder):
    """Finds TensorFlow once, as everybody would, and has its code run quietly."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def run_quietly(module: ModuleType) -> None:
                with quiet_tensorflow(begun=True):
                    run(module)
                    module.config.list_physical_devices()  # of which it tells too, once

            spec.loader.exec_module = run_quietly  # type: ignore[method-assign]
        return spec
