"""Pieces on workers: the same files for any engine and number, and nothing lost with a worker."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from headstart.config import SpreadConfig, TransferConfig
from headstart.errors import ConfigError, DatasetError, ServiceError
from headstart.tasks.bottlenecks import making
from headstart.tasks.bottlenecks.stage import BottlenecksManifest
from headstart.tasks.running import spreading
from headstart.tasks.running.spreading import (
    available_cores,
    is_spread,
    map_pieces,
    use_spreading,
    worker_environment,
)
from headstart.tasks.running.task_options import is_worth_retrying
from headstart.tasks.store.artifacts import Store, use_store
from headstart.tasks.views import writing as views_writing
from headstart.tasks.views.stage import ViewsManifest
from tests.pieces_to_map import (
    ROWS_A_SHARD,
    Deadly,
    double,
    extract_and_die_once,
    refuse,
    survive,
    write_small_shards,
)
from tests.pipeline import NUM_IMAGES, Pipeline

ROOT = Path(__file__).parent.parent
SETTINGS = ("views.num_augmented=2", "bottlenecks.extra_cuts=[second]")
DRIVER = """
from headstart.config import SpreadConfig
from headstart.tasks.running.spreading import map_pieces, use_spreading
from tests.pieces_to_map import linger

with use_spreading(SpreadConfig(runner="process", num_workers=1)):
    list(map_pieces(linger, [0]))
"""


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let spawned workers, which get this process's path, import the tests."""
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """Return the address of a Dask cluster with two workers, each a process."""
    from distributed import LocalCluster

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        environment = worker_environment(SpreadConfig(num_workers=2))
        with LocalCluster(2, threads_per_worker=1, dashboard_address=None, env=environment) as made:
            yield str(made.scheduler_address).replace("tcp", "dask")


@pytest.fixture(params=["thread", "process", "dask"])
def runner(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue("scheduler") if request.param == "dask" else request.param)


def spread_over(runner: str) -> SpreadConfig:
    return SpreadConfig(runner=runner, num_workers=2)


def digests(store: Store) -> dict[str, str]:
    """Return the content digest of the one manifest of each mapped stage."""
    with use_store(store):
        found: dict[str, str] = {}
        for name, model in (("views", ViewsManifest), ("bottlenecks", BottlenecksManifest)):
            (path,) = (store.root / "manifests" / name).glob("*.json")
            manifest = store.read_manifest(name, path.stem, model)
            assert manifest is not None
            found[name] = manifest.files_digest
    return found


def test_every_piece_is_done_once_and_an_error_keeps_its_parts(runner: str) -> None:
    with use_spreading(spread_over(runner)):
        assert sorted(map_pieces(double, range(5))) == [0, 2, 4, 6, 8]
        with pytest.raises(DatasetError) as caught:
            list(map_pieces(refuse, [3]))
    assert (caught.value.received, caught.value.next_step) == ("3", "double it")


@pytest.mark.parametrize("runner", ["process", "dask"], indirect=True)
def test_a_piece_whose_worker_is_killed_is_done_by_another(runner: str, tmp_path: Path) -> None:
    pieces = [Deadly(0), Deadly(1, str(tmp_path / "grave")), Deadly(2), Deadly(3)]
    with use_spreading(spread_over(runner)):
        assert sorted(map_pieces(survive, pieces)) == [0, 1, 2, 3]
    assert (tmp_path / "grave").exists()


def test_a_piece_that_kills_every_worker_ends_in_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spreading, "NUM_TRIES", 1)
    pieces = [Deadly(0), Deadly(1, str(tmp_path / "grave"), always=True)]
    with use_spreading(spread_over("process")), pytest.raises(ServiceError) as caught:
        list(map_pieces(survive, pieces))
    assert "lost their process 1 times" in caught.value.received


def test_pieces_that_kill_one_worker_each_are_all_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spreading, "NUM_TRIES", 2)
    pieces = [Deadly(number, str(tmp_path / f"grave {number}")) for number in range(2)]
    with use_spreading(SpreadConfig(runner="process", num_workers=1)):
        assert sorted(map_pieces(survive, pieces)) == [0, 1]
    assert len(list(tmp_path.glob("grave *"))) == 2


def test_workers_end_with_a_driver_that_is_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # Python's own last words on the semaphores left behind
        text=True,
    ) as driver:
        assert driver.stdout is not None
        worker = int(driver.stdout.readline())
        driver.kill()
        try:
            driver.communicate(timeout=20)  # ends when no worker can write to it any more
        except subprocess.TimeoutExpired:
            os.kill(worker, signal.SIGKILL)
            raise


def test_three_threads_write_the_files_of_one_stream(pipeline: Pipeline, tmp_path: Path) -> None:
    assert not is_spread()
    pipeline.extract(*SETTINGS)
    expected = digests(pipeline.store)
    pipeline.store = Store(tmp_path / "other")
    with use_spreading(SpreadConfig(runner="thread", num_workers=3)):
        assert is_spread()
        outcome = pipeline.extract(*SETTINGS)
    assert outcome.rows_computed == 2 * 3 * NUM_IMAGES
    assert digests(pipeline.store) == expected


def test_two_dask_workers_one_of_them_killed_write_the_files_of_one_process(
    pipeline: Pipeline, tmp_path: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.extract(*SETTINGS)
    expected = digests(pipeline.store)
    pipeline.store = Store(tmp_path / "other")
    monkeypatch.setattr("headstart.tasks.store.records.MIN_SHARD_ROWS", ROWS_A_SHARD)
    monkeypatch.setattr(views_writing, "write_piece", write_small_shards)
    monkeypatch.setattr(making, "extract_piece", extract_and_die_once)
    pipeline.num_passed()
    with use_spreading(spread_over(scheduler)):
        pipeline.extract(*SETTINGS)
    assert (tmp_path / "grave").exists()
    assert pipeline.num_passed() == 0  # not here
    assert digests(pipeline.store) == expected


@pytest.mark.parametrize(
    ("stage", "kind", "name", "other"),
    [
        (views_writing, "views", "headstart.tasks.views.recipes.codecs_digest", "other codecs"),
        (
            making,
            "bottlenecks",
            "headstart.tasks.bottlenecks.rows.arithmetic_versions",
            {"tensorflow": "1.0.0", "keras": "1.0.0"},
        ),
    ],
    ids=["views", "bottlenecks"],
)
def test_a_worker_that_would_make_other_rows_is_refused_before_it_makes_any(
    pipeline: Pipeline,
    monkeypatch: pytest.MonkeyPatch,
    stage: Any,
    kind: str,
    name: str,
    other: Any,
) -> None:
    def elsewhere(function: Any, pieces: Any) -> Iterator[Any]:
        with monkeypatch.context() as patch:
            patch.setattr(name, lambda: other)
            yield from map(function, pieces)

    monkeypatch.setattr(stage, "map_pieces", elsewhere)
    with use_spreading(spread_over("thread")), pytest.raises(ConfigError) as caught:
        pipeline.extract()
    assert "TensorFlow" in caught.value.received
    assert "Pillow" in caught.value.next_step
    assert not is_worth_retrying(caught.value)
    assert list(pipeline.store.root.glob(f"rows/{kind}/*/*.tfrecord")) == []
    assert pipeline.num_passed() == 0


def test_the_digest_tells_other_contents(pipeline: Pipeline, tmp_path: Path) -> None:
    pipeline.extract()
    first = digests(pipeline.store)
    pipeline.store = Store(tmp_path / "other")
    pipeline.extract("views.resize=pad", "bottlenecks.dtype=float32")
    second = digests(pipeline.store)
    assert first["views"] != second["views"]
    assert first["bottlenecks"] != second["bottlenecks"]


def test_a_run_that_was_cut_off_goes_on_with_the_same_pieces(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.extract()
    expected = digests(pipeline.store)
    pipeline.store = Store(tmp_path / "other")

    def first_only(function: Any, pieces: Any) -> Iterator[Any]:
        yield function(pieces[0])
        raise KeyboardInterrupt

    with use_spreading(spread_over("thread")):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(making, "map_pieces", first_only)
            pipeline.extract()
        outcome = pipeline.extract()
    assert 0 < outcome.rows_computed < NUM_IMAGES
    assert digests(pipeline.store) == expected


def test_rows_that_are_gone_when_the_pass_ends_are_missed(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headstart.errors import DamagedShardError

    original = making.check_parity

    def remove_a_shard(*arguments: Any) -> float:
        worst = original(*arguments)
        next(pipeline.collections()[0].folder.glob("*.index.npz")).unlink()
        return worst

    with monkeypatch.context() as patch:
        patch.setattr(making, "check_parity", remove_a_shard)
        with pytest.raises(DamagedShardError, match="gone from the store"):
            pipeline.extract()
    assert pipeline.extract().rows_computed == 10


def test_the_runner_is_in_no_key(finished: Pipeline) -> None:
    with use_spreading(SpreadConfig(runner="thread")):
        assert finished.extract().status == "hit"
    summary = finished.run("spread.runner=thread", "spread.num_workers=2")
    assert {outcome.status for outcome in summary.stages} == {"hit"}
    config = (Path(summary.run_dir) / "config.yaml").read_text()
    assert "runner: thread" in config


@pytest.mark.parametrize("runner", ["ray://head:10001", "dask://10.0.0.1:8786", "dask://[::1]:1"])
def test_a_cluster_is_named_by_host_and_port(runner: str) -> None:
    assert SpreadConfig(runner=runner).runner == runner


@pytest.mark.parametrize(
    "runner",
    [
        "dusk",
        "dask:/x",
        "thread://host:1",
        "dask://",
        "dask://host",
        "dask://host:port",
        "ray://:1",
        "",
    ],
)
def test_a_runner_that_does_not_exist_is_refused(runner: str) -> None:
    with pytest.raises(ValidationError):
        SpreadConfig(runner=runner)


@pytest.mark.parametrize("is_recorded", [False, True])
@pytest.mark.parametrize("port", [1, 99_999])
def test_a_scheduler_that_does_not_answer_is_named(
    port: int, is_recorded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dask
    import distributed  # noqa: F401  # its defaults, or they would go again with this setting

    monkeypatch.setattr(spreading, "in_flow_run", lambda: is_recorded)
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "0.2s"}),
        use_spreading(SpreadConfig(runner=f"dask://127.0.0.1:{port}")),
        pytest.raises(ServiceError, match=rf"no scheduler responds at dask://127\.0\.0\.1:{port}"),
    ):
        list(map_pieces(double, [1]))


def test_an_engine_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        use_spreading(SpreadConfig(runner="ray")),
        pytest.raises(ConfigError, match=r"pip install 'headstart\[ray\]'"),
    ):
        list(map_pieces(double, [1]))


def test_workers_of_one_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 <= available_cores() <= (os.cpu_count() or 1)
    monkeypatch.setattr(spreading, "available_cores", lambda: 8)
    for workers, threads in ((None, "1"), (2, "4"), (3, "2"), (16, "1")):
        environment = worker_environment(SpreadConfig(num_workers=workers))
        assert environment["TF_NUM_INTRAOP_THREADS"] == threads


def test_the_form_of_a_deployment_shows_the_runner() -> None:
    schema = json.dumps(TransferConfig.model_json_schema())
    assert "dask://HOST:PORT" in schema
