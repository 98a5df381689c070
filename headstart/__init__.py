"""headstart: a folder of images to a trained classifier, from cached bottlenecks.

>>> import headstart
>>> run = headstart.train("images/")
>>> run.predict("x.jpg").label
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from headstart.api import Run, train

__all__ = ["Run", "__version__", "train"]


def __getattr__(name: str) -> Any:
    """Import the API when it is first used: ``headstart --help`` does without."""
    if name in ("Run", "train"):
        from headstart import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
