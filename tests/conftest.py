"""Fixtures shared by all tests: a store of one's own, and nothing of the user's."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from headstart.tasks.artifacts import Store, use_store


@pytest.fixture(autouse=True)
def _private_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep a test away from the user's own store, Prefect server and Prefect database."""
    monkeypatch.setenv("HEADSTART_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Return a new store, current for the length of the test."""
    with use_store(Store(tmp_path / "store")) as new:
        yield new
