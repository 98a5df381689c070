"""Versions of libraries, known without importing them: an import of TensorFlow takes seconds."""

import sys
from functools import lru_cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

_OTHER_NAMES = {"tensorflow": ("tensorflow-cpu", "tf-nightly")}
"""Distributions that bring the same package."""


@lru_cache
def version_of(package: str) -> str:
    """Return a package's version, for keys.

    Args:
        package: Name of an installed package and, if need be, of the module that it brings.

    Returns:
        What the installation says; what the module says of itself where that is unknown.
    """
    for name in (package, *_OTHER_NAMES.get(package, ())):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return str((sys.modules.get(package) or import_module(package)).__version__)


def solver_versions() -> dict[str, str]:
    """Return the versions of what solves linear heads and probes, and finds what they tell."""
    return {"scikit-learn": version_of("scikit-learn"), "scipy": version_of("scipy")}


def arithmetic_versions() -> dict[str, str]:
    """Return the versions whose arithmetic is in what a network computes."""
    return {"tensorflow": version_of("tensorflow"), "keras": version_of("keras")}
