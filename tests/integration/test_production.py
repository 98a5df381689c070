"""`headstart up` as people use it: one server, one worker, a browser; cancelled and killed.

All tests share one running installation and build on each other's runs, in order: starting a
server takes longer than all of them.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import keras
import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterId,
)
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from prefect.states import Cancelling

from headstart.config import TransferConfig, load_config
from headstart.demo import write_digits
from headstart.flows.transfer import transfer
from headstart.service.guard import auth_string
from headstart.service.provisioning import SILENCE_LIMIT_S
from headstart.service.record import Started, birth_of, descendants, read_record
from tests.browser import VISIBLE_TEXT, Browser, needs_browser
from tests.pipeline import QUICK, save_backbone, statuses
from tests.prefect_pages import click, fill, wait_until

pytestmark = [pytest.mark.server, pytest.mark.timeout(1200)]
LIMIT_S = 600.0
"""Seconds in which a state must be reached; a busy machine takes many of them."""
SIDE = 32
STAGES = ["dataset", "views", "bottlenecks", "head", "evaluation", "export"]


class Installation:
    """A running `headstart up` over a folder with digits and a tiny backbone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = folder / "store"
        self.images = write_digits(folder / "digits")
        self.backbone = save_backbone(folder / "net.keras", size=SIDE)
        self.environment = {**os.environ, "PREFECT_HOME": str(folder / "prefect")}
        with (folder / "up.log").open("wb") as log:
            self.process = self.up("--images", str(self.images), stdout=log)

    def up(self, *arguments: str, **options: Any) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "headstart.cli", "up", "--store", str(self.store)]
        return subprocess.Popen(
            [*command, *arguments],
            env=self.environment,
            cwd=self.folder,
            stderr=subprocess.STDOUT,
            text=True,
            **options,
        )

    def ask(self, *arguments: str) -> tuple[int, str]:
        """Run `headstart up` with arguments that let it end, and return code and output."""
        process = self.up(*arguments, stdout=subprocess.PIPE)
        text, _ = process.communicate(timeout=LIMIT_S)
        return process.returncode, text

    @property
    def record(self) -> Any:
        return read_record(self.store)

    def wait_until_ready(self) -> None:
        log = self.folder / "up.log"
        wait_for(lambda: self.process.poll() is not None or "Ctrl-C stops" in log.read_text())
        assert self.process.poll() is None, log.read_text()

    def config(self, *settings: str) -> dict[str, Any]:
        chosen = (*QUICK, f"backbone.name={self.backbone}", "bottlenecks.batch_size=64")
        return load_config(self.images, settings=(*chosen, *settings)).model_dump(mode="json")

    def submit(self, client: SyncPrefectClient, *settings: str) -> FlowRun:
        deployment = client.read_deployment_by_name("transfer/transfer")
        return client.create_flow_run_from_deployment(
            deployment.id, parameters={"config": self.config(*settings)}
        )


def wait_for(is_true: Callable[[], Any], browser: Browser | None = None) -> Any:
    deadline_s = time.monotonic() + LIMIT_S
    while not (value := is_true()):
        if time.monotonic() > deadline_s:
            shown = browser.evaluate(VISIBLE_TEXT) if browser else ""
            raise AssertionError(f"it never came about; the page shows: {shown}")
        time.sleep(0.5)
    return value


def wait_for_state(client: SyncPrefectClient, run: FlowRun, *names: str) -> FlowRun:
    def reached() -> FlowRun | None:
        found = client.read_flow_run(run.id)
        assert found.state is not None
        ended = found.state.is_final() and found.state.name not in names
        assert not ended, (found.state.name, found.state.message)
        return found if found.state.name in names else None

    found: FlowRun = wait_for(reached)
    return found


def wait_until_it_trains(client: SyncPrefectClient, run: FlowRun) -> None:
    chosen = FlowRunFilter(id=FlowRunFilterId(any_=[run.id]))

    def trains() -> bool:
        tasks = client.read_task_runs(flow_run_filter=chosen)
        return any(task.name.startswith("head:") for task in tasks)

    wait_for(trains)


def artifacts(client: SyncPrefectClient, run: FlowRun) -> dict[str, Any]:
    chosen = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]))
    return {one.key: one for one in client.read_artifacts(artifact_filter=chosen)}


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    made = Installation(tmp_path_factory.mktemp("up"))
    try:
        made.wait_until_ready()
        yield made
    finally:
        if made.process.poll() is None:
            made.process.terminate()
            made.process.wait(LIMIT_S)


@pytest.fixture
def client(installation: Installation) -> Iterator[SyncPrefectClient]:
    with (
        temporary_settings(
            {
                PREFECT_API_URL: installation.record.api_url,
                PREFECT_API_AUTH_STRING: auth_string(installation.record.token),
            }
        ),
        get_client(sync_client=True) as opened,
    ):
        yield opened


@contextmanager
def signed_in(installation: Installation) -> Iterator[Browser]:
    """Open a browser with the address that `headstart up` has printed."""
    with Browser() as browser:
        browser.open(installation.record.pages()["Prefect"])
        browser.wait_for("Dashboard", "Deployments")
        yield browser


def test_check_finds_everything_well(installation: Installation) -> None:
    code, text = installation.ask("--check", "--json")
    findings = {finding["what"]: finding for finding in json.loads(text)}
    assert code == 0
    assert list(findings) == [
        "Prefect server",
        "work pool",
        "worker",
        "deployments",
        "GPU limit",
        "automation",
        "TensorBoard",
        "reports",
    ]
    assert all(finding["is_well"] for finding in findings.values())


def test_a_second_one_says_that_one_runs(installation: Installation) -> None:
    code, text = installation.ask()
    assert code == 8
    assert installation.record.pages()["Prefect"] in text
    assert str(installation.process.pid) in text


@needs_browser
def test_a_page_that_rebinds_its_name_starts_nothing(installation: Installation) -> None:
    port = installation.record.dashboard_url.rpartition(":")[2]
    ask = "fetch('/api/admin/version').then(reply => reply.status)"
    with Browser("--host-resolver-rules=MAP rebound.example 127.0.0.1") as browser:
        browser.open(installation.record.pages()["Prefect"])
        browser.wait_for("Dashboard")
        assert browser.evaluate(ask) == 200  # its own page is heard
        browser.open(f"http://rebound.example:{port}/")
        browser.wait_for("only accepts requests for 127.0.0.1")
        assert browser.evaluate("fetch('/api/csrf-token?client=1').then(it => it.status)") == 403
        assert browser.evaluate(ask) == 403


@needs_browser
def test_nobody_gets_in_without_the_printed_address(installation: Installation) -> None:
    with Browser() as browser:
        browser.open(installation.record.dashboard_url)
        browser.wait_for("Open the address that `headstart up` printed")
        browser.open(installation.record.tensorboard_url.rpartition("/")[0])
        browser.wait_for("Not found")
        browser.open(installation.record.pages()["TensorBoard"])
        browser.wait_for("TensorBoard")


def test_a_wrong_value_is_refused_where_it_is_submitted(
    installation: Installation, client: SyncPrefectClient
) -> None:
    deployment = client.read_deployment_by_name("transfer/transfer")
    config = installation.config()
    config["dataset"]["val_fraction"] = 1.5
    with pytest.raises(Exception, match=r"1\.5 is greater than or equal to the maximum of 1"):
        client.create_flow_run_from_deployment(deployment.id, parameters={"config": config})


@needs_browser
def test_the_form_starts_a_run_that_leaves_its_report(
    installation: Installation, client: SyncPrefectClient, tmp_path: Path
) -> None:
    deployment = client.read_deployment_by_name("transfer/transfer")
    page = f"{installation.record.dashboard_url}/deployments/deployment/{deployment.id}"
    with signed_in(installation) as browser:
        browser.open(f"{page}/run")
        browser.wait_for("Images", "Maximum number of epochs", "Peak learning rate")
        fill(browser, "Name (Optional)", str(installation.backbone))
        fill(browser, "Epochs (Optional)", "4")
        fill(browser, "Num Bootstrap (Optional)", "20")
        click(browser, "Submit")
        (run,) = wait_for(client.read_flow_runs, browser)
        finished = wait_for_state(client, run, "Completed")
        assert finished.name == "digits, net.keras, cut top, linear head"
        assert finished.parameters["config"]["head"]["epochs"] == 4

        browser.open(f"{installation.record.dashboard_url}/runs/flow-run/{run.id}")
        browser.wait_for(finished.name, "Completed", "MISS bottlenecks", "MISS export")
        left = artifacts(client, run)
        assert {"transfer-report", "transfer-classes", "transfer-stages"} <= left.keys()
        browser.open(
            f"{installation.record.dashboard_url}/artifacts/artifact/{left['transfer-report'].id}"
        )
        browser.wait_for("accuracy on", "Images with the highest loss", "bottlenecks", "Stages")
        wait_until(
            browser,
            "(pictures => pictures.length >= 10 && pictures.every(one => one.naturalWidth > 0))"
            "([...document.querySelectorAll('article img')])",
        )
        report = str(left["transfer-page"].data).partition("(")[2].rstrip(")")
        assert report.startswith(installation.record.runs_url)
        browser.open(report)
        browser.wait_for("accuracy", "Confusion", "Highest losses")


@needs_browser
def test_the_page_of_a_deployment_schedules_it(
    installation: Installation, client: SyncPrefectClient
) -> None:
    deployment = client.read_deployment_by_name("transfer/transfer")
    with signed_in(installation) as browser:
        browser.open(f"{installation.record.dashboard_url}/deployments/deployment/{deployment.id}")
        browser.wait_for("Schedules")
        click(browser, "Schedule")
        click(browser, "Cron")
        click(browser, "Save")
        schedules = wait_for(lambda: client.read_deployment(deployment.id).schedules, browser)
    assert len(schedules) == 1
    client.delete_deployment_schedule(deployment.id, schedules[0].id)  # or it starts more runs


def test_what_was_changed_in_the_pages_outlives_a_restart(
    installation: Installation, client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The registration of a restart, of one deployment alone: all of them take ten times as long.
    for name, value in installation.record.variables().items():
        monkeypatch.setenv(name, value)
    from headstart.service import provisioning

    whole = provisioning.definition()
    one = [each for each in whole["deployments"] if each["name"] == "retrain"]
    monkeypatch.setattr(provisioning, "definition", lambda: deepcopy({**whole, "deployments": one}))
    folder = installation.store / "service"
    with temporary_settings({
        PREFECT_API_URL: installation.record.api_url,
        PREFECT_API_AUTH_STRING: auth_string(installation.record.token),
    }):  # fmt: skip
        deployment = client.read_deployment_by_name("retrain/retrain")
        assert provisioning.edited_parameters(folder) == {"retrain": None}
        (schedule,) = deployment.schedules
        client.update_deployment_schedule(deployment.id, schedule.id, active=True)
        changed = deepcopy(deployment.parameters)
        changed["config"]["head"] = {"epochs": 3}
        update = DeploymentUpdate(parameters=changed)
        client.update_deployment(deployment.id, update)
        edited = provisioning.edited_parameters(folder)
        assert edited == {"retrain": changed}
        project = provisioning.write_project(
            installation.folder / "again", "local", None, installation.folder, edited
        )
        provisioning.deploy(project, dict(os.environ))
        after = client.read_deployment_by_name("retrain/retrain")
        assert [each.active for each in after.schedules] == [True]
        assert after.parameters == changed
        client.update_deployment_schedule(after.id, after.schedules[0].id, active=False)


@needs_browser
def test_a_layer_that_makes_nan_is_named_in_the_diagnosis(
    installation: Installation, client: SyncPrefectClient
) -> None:
    images = keras.Input((SIDE, SIDE, 3))
    x = keras.layers.Conv2D(4, 3, strides=2, activation="relu", name="first")(images)
    x = keras.ops.log(keras.layers.Rescaling(-1.0, offset=-1.0, name="negative")(x))
    broken = keras.Model(images, keras.layers.GlobalAveragePooling2D()(x))
    broken.save(installation.folder / "broken.keras")
    run = installation.submit(
        client,
        f"backbone.name={installation.folder / 'broken.keras'}",
        "bottlenecks.cut=first",
        "head.kind=tail",
        "head.epochs=1",
        "views.image_size=32",
    )
    wait_for_state(client, run, "Failed")
    # Prefect calls the hook that writes it once the run has ended, and the failing steps are
    # replayed first.
    diagnosis = wait_for(lambda: artifacts(client, run).get("transfer-diagnosis"))
    with signed_in(installation) as browser:
        browser.open(f"{installation.record.dashboard_url}/artifacts/artifact/{diagnosis.id}")
        browser.wait_for("Log", "NaN")


def test_cancelling_stops_the_training_and_leaves_what_is_finished(
    installation: Installation, client: SyncPrefectClient
) -> None:
    run = installation.submit(client, "head.epochs=100000", "head.seed=1")
    wait_until_it_trains(client, run)
    (worker,) = (one for one in installation.record.children if one.name == "worker")
    training = descendants([worker.pid])
    assert training
    client.set_flow_run_state(run.id, Cancelling())
    wait_for_state(client, run, "Cancelled")
    wait_for(lambda: not any(process.is_alive() for process in training))
    config = TransferConfig.model_validate(installation.config("head.epochs=1", "head.seed=1"))
    summary = transfer.fn(config, installation.store)
    assert statuses(summary) == {
        **dict.fromkeys(STAGES, "miss"),
        **dict.fromkeys(("dataset", "views", "bottlenecks"), "hit"),
    }


def test_a_killed_worker_is_replaced_and_its_run_seen_as_crashed(
    installation: Installation, client: SyncPrefectClient
) -> None:
    run = installation.submit(client, "head.epochs=100000", "head.seed=2")
    wait_until_it_trains(client, run)
    (worker,) = (one for one in installation.record.children if one.name == "worker")
    training = descendants([worker.pid])
    os.kill(worker.pid, signal.SIGKILL)
    wait_for_state(client, run, "Crashed")
    wait_for(lambda: not any(process.is_alive() for process in training))
    again = installation.submit(client, "head.epochs=1", "head.seed=2")
    wait_for_state(client, again, "Completed")
    chosen = FlowRunFilter(id=FlowRunFilterId(any_=[again.id]))
    states = {
        task.name.partition(":")[0]: task.state.name
        for task in client.read_task_runs(flow_run_filter=chosen)
        if task.state is not None
    }
    assert states["bottlenecks"] == "Cached"
    assert states["head"] == "Completed"


@pytest.mark.proof
@pytest.mark.timeout(1800)
def test_a_run_without_a_sign_of_life_is_seen_as_crashed_and_no_other_is(
    installation: Installation, client: SyncPrefectClient
) -> None:
    before = {run.id for run in client.read_flow_runs()}
    settings = (*QUICK, f"backbone.name={installation.backbone}", "head.epochs=100000")
    options = [part for setting in settings for part in ("--set", setting)]
    arguments = [str(installation.images), "--store", str(installation.store), *options]
    process = subprocess.Popen(
        [sys.executable, "-m", "headstart.cli", "train", *arguments],
        env=installation.environment,
        cwd=installation.folder,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: process.poll() is not None or len(client.read_flow_runs()) > len(before))
        assert process.poll() is None
        (run,) = (new for new in client.read_flow_runs() if new.id not in before)
        wait_until_it_trains(client, run)
        time.sleep(SILENCE_LIMIT_S + 60)  # a live run is left alone, however long it takes
        assert process.poll() is None
        state = client.read_flow_run(run.id).state
        assert state is not None
        assert state.name == "Running"
    finally:
        process.kill()
        process.wait()
    state = wait_for_state(client, run, "Crashed").state
    assert state is not None
    assert "No heartbeat for" in str(state.message)


def test_sigterm_leaves_no_process_behind(installation: Installation) -> None:
    started = [Started.of("up", installation.process.pid), *descendants([installation.process.pid])]
    assert len(started) >= 4
    installation.process.send_signal(signal.SIGTERM)
    assert installation.process.wait(LIMIT_S) == 0
    assert [process for process in started if birth_of(process.pid) == process.birth] == []
    assert installation.record is None
    code, text = installation.ask("--check")
    assert code == 8
    assert "headstart up" in text
