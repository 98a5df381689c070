"""Flows under a real Prefect server: cached tasks, artifacts, and a failure that is explained."""

import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import keras
import numpy as np
import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterId,
)
from prefect.client.schemas.objects import TaskRun
from prefect.client.schemas.sorting import FlowRunSort
from prefect.settings import (
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    get_current_settings,
    temporary_settings,
)
from prefect.testing.utilities import prefect_test_harness
from rich.console import Console

from headstart.config import (
    CompareConfig,
    FinetuneConfig,
    ScratchConfig,
    SpreadConfig,
    SweepConfig,
    TransferabilityConfig,
    build_config,
)
from headstart.errors import DatasetError, RecordError
from headstart.flows.compare import compare
from headstart.flows.diagnosis import diagnose_failure, flight_recorder
from headstart.flows.finetune import finetune
from headstart.flows.scratch import scratch
from headstart.flows.sweep import sweep
from headstart.flows.transfer import transfer
from headstart.flows.transferability import transferability
from headstart.launch import run_flow
from headstart.tasks.evaluation.report import data_uri
from headstart.tasks.progress import Reporter
from headstart.tasks.running.spreading import map_pieces, use_spreading
from tests.pieces_to_map import Deadly, refuse_and_count, survive
from tests.pipeline import LADDER, QUICK, STUDY, Pipeline, statuses
from tests.scratch_data import SCRATCH, write_idx

ROOT = Path(__file__).parent.parent.parent
STAGES = ["dataset", "views", "bottlenecks", "head", "evaluation", "export"]

pytestmark = pytest.mark.server


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    """Start a Prefect server with a database of its own."""
    with (
        prefect_test_harness(server_startup_timeout=90),
        temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),
    ):
        yield


def record(pipeline: Pipeline, *settings: str) -> Any:
    """Run the flow recorded; return its final state."""
    return transfer(pipeline.config(*settings), pipeline.store.root, return_state=True)


def task_runs(state: Any, at_least: int = 1) -> list[TaskRun]:
    """Return the task runs of a flow run, in order, from the server.

    A task's states reach the server as events, which it writes down in batches: those that a
    worker of another process sent may be on their way when the flow has ended. So this waits
    until there are `at_least` so many, each in a final state, and none came since the last look.
    """
    chosen = FlowRunFilter(id=FlowRunFilterId(any_=[state.state_details.flow_run_id]))
    num_seen = 0
    deadline_s = time.monotonic() + 60
    with get_client(sync_client=True) as client:
        while time.monotonic() < deadline_s:
            runs = client.read_task_runs(flow_run_filter=chosen)
            ended = all(run.state is not None and run.state.is_final() for run in runs)
            if ended and at_least <= len(runs) == num_seen:
                return sorted(runs, key=lambda run: run.expected_start_time)
            num_seen = len(runs)
            time.sleep(0.5)
    raise AssertionError(f"some tasks never ended: {[(r.name, r.state) for r in runs]}")


def task_states(state: Any) -> dict[str, str]:
    """Return the state of each task of a flow run, in order, from the server."""
    return {run.name.partition(":")[0]: run.state_name or "" for run in task_runs(state)}


def artifacts(state: Any) -> dict[str, str]:
    """Return the artifacts of a flow run by key, from the server."""
    chosen = ArtifactFilter(
        flow_run_id=ArtifactFilterFlowRunId(any_=[state.state_details.flow_run_id])
    )
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=chosen)
    return {artifact.key: str(artifact.data) for artifact in found}


def test_stages_are_tasks_and_a_second_run_finds_them_cached(pipeline: Pipeline) -> None:
    first = record(pipeline)
    assert first.name == "Completed"
    assert task_states(first) == dict.fromkeys(STAGES, "Completed")
    second = record(pipeline)
    # Views are not needed where all bottlenecks are there, so they are no task of this run.
    assert task_states(second) == dict.fromkeys([s for s in STAGES if s != "views"], "Cached")
    assert set(statuses(second.result()).values()) == {"hit"}
    assert pipeline.num_passed() == len(list(pipeline.images.rglob("*.png")))


def test_a_recorded_run_finds_what_a_plain_one_made(finished: Pipeline) -> None:
    state = record(finished)
    assert set(task_states(state).values()) == {"Cached"}
    assert set(statuses(state.result()).values()) == {"hit"}
    assert finished.num_passed() == 0


def test_a_plain_run_finds_what_a_recorded_one_made(pipeline: Pipeline) -> None:
    record(pipeline)
    assert set(statuses(pipeline.run()).values()) == {"hit"}


def test_a_cached_manifest_whose_files_are_gone_is_not_replayed(pipeline: Pipeline) -> None:
    record(pipeline)
    pipeline.num_passed()
    shutil.rmtree(pipeline.store.root / "rows" / "bottlenecks")
    state = record(pipeline)
    assert task_states(state)["bottlenecks"] == "Completed"
    assert pipeline.num_passed() == len(list(pipeline.images.rglob("*.png")))


def test_damage_found_on_reading_is_mended_in_the_same_run(pipeline: Pipeline) -> None:
    record(pipeline)
    pipeline.num_passed()
    shard = pipeline.collections()[0].shards()[0]
    path = pipeline.store.root / shard.entry.path
    stat, data = path.stat(), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # whole, seen from outside
    state = record(pipeline, "head.seed=1")
    assert state.name == "Completed"
    assert pipeline.num_passed() == len(shard.row_ids)
    assert state.result().metrics["val"]["accuracy"] == 1.0


def test_a_run_leaves_its_report_and_tables(finished: Pipeline) -> None:
    left = artifacts(record(finished))
    assert set(left) == {"transfer-report", "transfer-classes", "transfer-stages"}
    assert "accuracy" in left["transfer-report"]
    assert "data:image/png;base64," in left["transfer-report"]
    assert "bottlenecks" in left["transfer-stages"]


def test_a_trial_that_the_time_ends_fails_its_task_and_not_the_run(
    finished: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headstart.flows import budget
    from headstart.flows.trials import Trials
    from headstart.tasks.budgeting.clock import Clock

    seconds, original = [0.0], Trials.train

    def train(trials: Trials, recipe: Any, dataset: Any) -> Any:
        seconds[0] = 1e6 if recipe.head == "mlp" else 0.0
        return original(trials, recipe, dataset)

    monkeypatch.setattr(Trials, "train", train)
    monkeypatch.setattr(budget, "Clock", lambda budget_s: Clock(budget_s, lambda: seconds[0]))
    told = ("budget.seconds=10000", "budget.attempts=[mlp]", "budget.num_folds=2", "head.epochs=1")
    state = record(finished, *told)
    assert state.name == "Completed"
    assert [one.outcome for one in state.result().tried] == ["chosen", "stopped"]
    assert task_states(state)["head"] == "Failed"  # the last of them
    assert "stopped: the time budget is used up" in artifacts(state)["transfer-budget"]


@pytest.mark.parametrize(
    ("training", "model", "settings", "left"),
    [
        (finetune, FinetuneConfig, (*QUICK, *LADDER), {"ladder", "report", "classes", "stages"}),
        (
            sweep,
            SweepConfig,
            (*QUICK, "search.grid={head.dropout: [0.0, 0.5]}"),
            {"heads", "report", "classes", "stages"},
        ),
        (compare, CompareConfig, (*STUDY, "block_cut=second", "seeds=[0]"), {"report", "stages"}),
        (
            transferability,
            TransferabilityConfig,
            (*STUDY, "cuts=[top, first]", "seeds=[0]"),
            {"report", "stages"},
        ),
    ],
    ids=["finetune", "sweep", "compare", "transferability"],
)
def test_what_trains_more_than_heads_is_recorded_and_found_again(
    pipeline: Pipeline, training: Any, model: Any, settings: tuple[str, ...], left: set[str]
) -> None:
    network = f"backbone.name={pipeline.backbone}"
    config = build_config(model, pipeline.images, settings=(*settings, network))
    state = training(config, pipeline.store.root, return_state=True)
    assert state.name == "Completed"
    # Two trainings of a study may share a stage, which the second one finds.
    assert set(task_states(state).values()) <= {"Completed", "Cached"}
    keys = {f"{training.name}-{name}" for name in left}
    assert keys <= set(artifacts(state))  # beside findings, and progress where it took long
    assert "data:image/" in artifacts(state)[f"{training.name}-report"]
    again = training.fn(config, pipeline.store.root)
    assert {stage.status for stage in again.stages} == {"hit"}


def test_training_from_scratch_is_recorded_and_shows_where_it_looks(tmp_path: Path) -> None:
    config = build_config(
        ScratchConfig,
        str(write_idx(tmp_path / "bars")),
        settings=(*SCRATCH, "training.epochs=2", "compare=true"),
    )
    state = scratch(config, tmp_path / "store", return_state=True)
    assert state.name == "Completed"
    stages = {"pixels", "schedule", "epoch_views", "training", "evaluation", "export"}
    assert set(task_states(state)) == stages
    report = artifacts(state)["scratch-report"]
    heatmaps = (Path(state.result().run_dir) / "heatmaps.png").read_bytes()
    assert data_uri(heatmaps, "image/png") in report
    assert set(statuses(scratch.fn(config, tmp_path / "store")).values()) == {"hit"}


def test_a_wrong_configuration_fails_with_its_message(finished: Pipeline) -> None:
    state = record(finished, "bottlenecks.cut=nowhere")
    assert state.name == "Failed"
    assert "headstart cuts" in artifacts(state)["transfer-diagnosis"]


def test_pieces_on_threads_are_task_runs_and_their_rows_are_found(pipeline: Pipeline) -> None:
    state = record(pipeline, "spread.runner=thread", "spread.num_workers=2")
    assert state.name == "Completed"
    runs = task_runs(state)
    assert {run.state_name for run in runs} == {"Completed"}
    pieces = [run.name for run in runs if ", piece " in run.name]
    # 36 images in shards of 10, as views and as bottlenecks
    assert sorted(pieces) == sorted(
        f"{stage}, piece {number} of 4"
        for stage in (run.name for run in runs if run.name.startswith(("views: ", "bottlenecks: ")))
        if ", piece " not in stage
        for number in range(1, 5)
    )
    assert len(pieces) == 2 * 4
    assert set(statuses(pipeline.run()).values()) == {"hit"}


@pytest.fixture(params=["process", "dask", "ray"])
def runner(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return a runner whose workers are processes, which can import the tests."""
    monkeypatch.syspath_prepend(str(ROOT))
    if request.param == "process":
        yield "process"
        return
    if request.param == "ray":
        pytest.importorskip("prefect_ray")
        monkeypatch.setenv("PYTHONPATH", str(ROOT))  # its workers inherit no more
        yield "ray"
        return
    from distributed import LocalCluster

    with LocalCluster(2, threads_per_worker=1, dashboard_address=None) as cluster:
        yield str(cluster.scheduler_address).replace("tcp", "dask")


def test_pieces_outlive_a_worker_and_an_error_is_not_tried_again(
    runner: str, tmp_path: Path
) -> None:
    @flow(name="pieces")
    def spread() -> list[int]:
        with use_spreading(SpreadConfig(runner=runner, num_workers=2)):
            pieces = [Deadly(0), Deadly(1, str(tmp_path / "grave")), Deadly(2)]
            done = sorted(map_pieces(survive, pieces))
            with pytest.raises(DatasetError, match="double it"):
                list(map_pieces(refuse_and_count, [str(tmp_path / "tries")]))
        return done

    state = spread(return_state=True)
    assert state.result() == [0, 1, 2]
    assert (tmp_path / "grave").exists()
    assert (tmp_path / "tries").read_text() == "tried\n"
    if runner == "ray":  # its workers end before they have told the server
        return
    (failed,) = (run for run in task_runs(state, at_least=4) if run.state_name == "Failed")
    assert failed.run_count == 1


LAYERS = '''
import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("tests")
class Fragile(keras.layers.Layer):
    """Hands its input on, until it has been called too often."""

    def build(self, shape):
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False, name="calls")

    def call(self, x, training=False):
        if training:
            self.calls.assign_add(1.0)
        room = 37.5 - self.calls
        return x * tf.sqrt(room) / tf.sqrt(tf.abs(room))  # NaN from step 37 on
'''


@pytest.fixture
def fragile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Path]:
    """Return a layer of a user's own, from a module of theirs, and the module's file."""
    file = tmp_path / "user_layers.py"
    file.write_text(LAYERS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "user_layers", raising=False)
    import user_layers

    return user_layers.Fragile, file


def test_a_failing_layer_of_the_users_own_is_named_in_the_ui(
    fragile: tuple[Any, Path], tmp_path: Path
) -> None:
    layer, _ = fragile
    line = LAYERS.splitlines().index(
        "        return x * tf.sqrt(room) / tf.sqrt(tf.abs(room))  # NaN from step 37 on"
    )

    @flow(name="users", on_failure=[diagnose_failure])
    def train_mine() -> None:
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [keras.Input((4,)), keras.layers.Dense(8), layer(name="fragile"), keras.layers.Dense(2)]
        )
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        x = np.random.default_rng(0).normal(size=(256, 4)).astype(np.float32)
        y = (x[:, 0] > 0).astype(np.int32)
        recorder = flight_recorder(tmp_path / "run")
        model.fit(x, y, batch_size=16, epochs=5, verbose=0, callbacks=[recorder])

    state = train_mine(return_state=True)
    assert state.name == "Failed"
    diagnosis = artifacts(state)["users-diagnosis"]
    assert "fragile" in diagnosis
    assert f"user_layers.py:{line + 1}" in diagnosis or f"line {line + 1}" in diagnosis
    assert "37" in diagnosis
    assert "headstart debug replay" in diagnosis


def test_what_prefect_keeps_of_a_run_has_no_secret(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"
    url = get_current_settings().api.url
    assert url is not None
    monkeypatch.setenv("PREFECT_API_URL", url)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    monkeypatch.setenv("HEADSTART_MIRROR", str(tmp_path / "mirror"))
    bucket = f"/KEY:{secret}@{tmp_path.name}"
    place, quiet = Path(f"memory:/{bucket}/prefix"), Reporter(Console(quiet=True))
    run_flow("transfer", pipeline.config(), place, tmp_path / "run", False, quiet)
    fsspec.filesystem("memory").pipe(f"{bucket}/prefix/store.json", b'{"layout": 99}')
    with pytest.raises(RecordError, match="a different layout"):
        run_flow("transfer", pipeline.config(), place, tmp_path / "failed", False, quiet)
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=2)
        chosen = FlowRunFilter(id=FlowRunFilterId(any_=[run.id for run in runs]))
        left = client.read_artifacts(flow_run_filter=chosen)
        tasks = client.read_task_runs(flow_run_filter=chosen)
    assert {run.state_name for run in runs} == {"Completed", "Failed"}
    assert "transfer-diagnosis" in {one.key for one in left}
    assert secret not in " ".join(one.model_dump_json() for one in (*runs, *left, *tasks))
    fsspec.filesystem("memory").rm(bucket, recursive=True)
