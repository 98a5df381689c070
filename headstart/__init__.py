"""headstart: a folder of images to a trained classifier, from cached bottlenecks.

>>> import headstart
>>> run = headstart.train("images/")
>>> run.predict("x.jpg").label
"""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

IMPORTED_AT_S = time.monotonic()
"""When a command began, as near as Python can tell."""
_here = Path(__file__).parent
if not (_here / "flows").exists():
    # A checkout, found because the working folder is first on the path (Prefect puts it there,
    # `python -m` too), where it hides an installed package: flows, tasks and debug lie beside.
    __path__.append(str(_here.parent))
if "ipykernel" in sys.modules:  # a notebook, which shows what TensorFlow says at its import
    from headstart.tasks.running.tensorflow import quieten_imports

    quieten_imports()

__version__ = "0.1.0"

if TYPE_CHECKING:
    from headstart.api import (
        audit,
        bench,
        bottlenecks,
        compare,
        evaluate,
        explain,
        finetune,
        load,
        rank,
        scratch,
        search,
        sweep,
        train,
    )
    from headstart.results import Bottlenecks, Run

__all__ = [
    "Bottlenecks",
    "Run",
    "__version__",
    "audit",
    "bench",
    "bottlenecks",
    "compare",
    "evaluate",
    "explain",
    "finetune",
    "load",
    "rank",
    "scratch",
    "search",
    "sweep",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import the API when it is first used: ``headstart --help`` does without."""
    if name in __all__:
        from headstart import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
