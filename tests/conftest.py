"""Fixtures shared by all tests: a store of one's own, and nothing of the user's."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

from headstart.tasks.store.artifacts import Store, use_store

if TYPE_CHECKING:
    from tests.pipeline import Pipeline

_PREFECT_HOME = tempfile.TemporaryDirectory(prefix="headstart-tests-")
# Prefect reads its settings when it is imported, which may be while tests are collected.
os.environ["PREFECT_HOME"] = _PREFECT_HOME.name
os.environ.pop("PREFECT_API_URL", None)


# How fast examples are made says how busy the machine is, not what is tested.
settings.register_profile("headstart", suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("headstart")

MAX_WORKERS = 4
"""Processes that `pytest -n auto` spreads the tests over: each holds a TensorFlow (1 to 2 GB)."""


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return how many processes `-n auto` starts."""
    return min(MAX_WORKERS, len(os.sched_getaffinity(0)))


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


@pytest.fixture(scope="session")
def _tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a tiny data set and a tiny backbone; nobody changes them."""
    from tests.pipeline import save_backbone, write_images

    folder = tmp_path_factory.mktemp("tiny")
    write_images(folder / "images")
    save_backbone(folder / "net.keras")
    return folder


@pytest.fixture(scope="session")
def _finished(_tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the store of a finished run; nobody changes it."""
    from tests import pipeline

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("headstart.tasks.store.records.MIN_SHARD_ROWS", pipeline.ROWS_A_SHARD)
        root = tmp_path_factory.mktemp("finished") / "store"
        made = pipeline.Pipeline(_tiny / "images", _tiny / "net.keras", Store(root))
        made.run()
    return root


@pytest.fixture
def pipeline(_tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Pipeline":
    """Return a pipeline with images, a backbone and an empty store of its own.

    Its shards are of 10 rows, so that its few images make several; it counts what goes through
    the backbone.
    """
    from tests import pipeline

    shutil.copytree(_tiny / "images", tmp_path / "images")
    shutil.copy2(_tiny / "net.keras", tmp_path / "net.keras")
    made = pipeline.Pipeline(tmp_path / "images", tmp_path / "net.keras", Store(tmp_path / "store"))
    monkeypatch.setattr("headstart.tasks.store.records.MIN_SHARD_ROWS", pipeline.ROWS_A_SHARD)
    _count_passes(made.passes, monkeypatch)
    return made


@pytest.fixture
def finished(_finished: Path, pipeline: "Pipeline") -> "Pipeline":
    """Return a pipeline that has been run once."""
    shutil.rmtree(pipeline.store.root)
    shutil.copytree(_finished, pipeline.store.root)
    return pipeline


def _count_passes(passes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    from headstart.tasks.bottlenecks import making

    original = making.freeze

    def freeze(*arguments: Any) -> Callable[[Any], Any]:
        extract = original(*arguments)

        def count(pixels: Any) -> Any:
            passes.append(len(pixels))
            return extract(pixels)

        for name in ("graph", "inputs", "outputs"):  # what a conversion reads
            setattr(count, name, getattr(extract, name))
        return count

    monkeypatch.setattr(making, "freeze", freeze)
