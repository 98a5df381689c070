"""What a Prefect server is given: a work pool, the deployments, the limit, the automation.

All of it can be done again to a server that has it. Imports Prefect, so its address must be in
PREFECT_API_URL before this module is imported.
"""

import contextlib
import shlex
import subprocess
import sys
from collections.abc import Mapping
from datetime import timedelta
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import Automation, AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectNotFound
from prefect.workers.process import ProcessWorker

from headstart.errors import ServiceError
from headstart.service.record import HEARTBEAT_S

POOL = "local"
GPU_TAG = "gpu"
"""Of the tasks that use a GPU; the server lets one of them run at a time."""
SILENCE_LIMIT_S = 3 * HEARTBEAT_S
"""Without a sign of life for so long a flow run is taken for dead: three beats missed."""
AUTOMATION = "headstart: mark a flow run without heartbeat as crashed"
DEPLOY_LIMIT_S = 300


def definition() -> dict[str, Any]:
    """Read the deployments that come with headstart, the repository's prefect.yaml."""
    text = resources.files("headstart.flows").joinpath("prefect.yaml").read_text("utf-8")
    project: dict[str, Any] = yaml.safe_load(text)
    return project


def deployment_names() -> list[str]:
    """List the deployments that come with headstart, as "flow/deployment"."""
    return [
        f"{deployment['entrypoint'].rpartition('.')[2]}/{deployment['name']}"
        for deployment in definition()["deployments"]
    ]


def provision(pool: str) -> None:
    """Give the server of PREFECT_API_URL a work pool, the limit and the automation."""
    with get_client(sync_client=True) as client:
        template = ProcessWorker.get_default_base_job_template()
        client.create_work_pool(
            WorkPoolCreate(
                name=pool,
                type=ProcessWorker.type,
                description="Flow runs as processes of this machine, started by headstart up.",
                base_job_template=template,
            ),
            overwrite=True,
        )
        client.create_concurrency_limit(GPU_TAG, 1)
        if find_automation(client) is None:
            client.create_automation(_crash_silent_runs())


def find_automation(client: SyncPrefectClient) -> Automation | None:
    """Return the server's automation that ends dead runs, if it has it and it is on."""
    found: list[Automation] = client.read_automations_by_name(AUTOMATION)
    return next((automation for automation in found if automation.enabled), None)


def has_gpu_limit(client: SyncPrefectClient) -> bool:
    """Say whether the server lets only so many GPU tasks run at a time."""
    with contextlib.suppress(ObjectNotFound):
        return client.read_concurrency_limit_by_tag(GPU_TAG) is not None
    return False


def _crash_silent_runs() -> AutomationCore:
    """A run whose process and worker were both killed says nothing more: nobody else ends it.

    Source: the recipe for zombie flow runs in Prefect's documentation of automations.
    """
    ends = {f"prefect.flow-run.{name}" for name in ("Completed", "Failed", "Cancelled", "Crashed")}
    beat = "prefect.flow-run.heartbeat"
    return AutomationCore(
        name=AUTOMATION,
        description=f"No heartbeat for {SILENCE_LIMIT_S} s: the run's process was killed.",
        trigger=EventTrigger(
            after={beat},
            expect={beat, *ends},
            match={"prefect.resource.id": ["prefect.flow-run.*"]},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=SILENCE_LIMIT_S),
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                message=f"No heartbeat for {SILENCE_LIMIT_S} s; run it again, and it continues "
                "from what is finished.",
            )
        ],
    )


def edited_parameters(folder: Path) -> dict[str, dict[str, Any] | None]:
    """Ask the server of PREFECT_API_URL what somebody has made of the deployments in its pages.

    Args:
        folder: With the prefect.yaml that they were last registered from.

    Returns:
        By the names of those that it has: their parameters, None where they are as registered.
    """
    try:
        last = yaml.safe_load((folder / "prefect.yaml").read_text("utf-8"))["deployments"]
        registered = {one["name"]: one["parameters"] for one in last}
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        registered = {}
    found: dict[str, dict[str, Any] | None] = {}
    with get_client(sync_client=True) as client:
        for name in deployment_names():
            with contextlib.suppress(ObjectNotFound):
                now = client.read_deployment_by_name(name).parameters
                short = name.partition("/")[2]
                found[short] = None if now == registered.get(short, now) else now
    return found


def write_project(
    folder: Path,
    pool: str,
    images: Path | None,
    working_dir: Path,
    edited: Mapping[str, dict[str, Any] | None] | None = None,
) -> Path:
    """Write a prefect.yaml with this installation's deployments.

    Args:
        folder: Gets the prefect.yaml; made where it is not there.
        pool: Work pool of the deployments.
        images: What the forms propose as the data set; the definition's own where None.
        working_dir: Folder that relative paths in the forms start at.
        edited: From `edited_parameters`: what these deployments have been given stays, and so do
            their schedules.
    """
    edited = edited or {}
    project = definition()
    step = {"prefect.deployments.steps.set_working_directory": {"directory": str(working_dir)}}
    project["pull"] = [step]
    for deployment in project["deployments"]:
        deployment["work_pool"]["name"] = pool
        kept = edited.get(deployment["name"])
        if deployment["name"] in edited:
            deployment.pop("schedules", None)  # which leaves those that there are
        if kept is not None:
            deployment["parameters"] = kept
        dataset = deployment["parameters"].get("config", {}).get("dataset")
        if dataset is not None and (images is not None or kept is None):
            dataset["images"] = str(working_dir / (images or dataset["images"]))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "prefect.yaml"
    path.write_text(yaml.safe_dump(project, sort_keys=False), encoding="utf-8")
    return path


def deploy(project: Path, environment: dict[str, str]) -> None:
    """Register all deployments of a prefect.yaml, as ``prefect deploy --all`` does.

    Args:
        project: Path of the prefect.yaml.
        environment: Variables of the command, PREFECT_API_URL among them.

    Raises:
        ServiceError: Prefect refused a deployment.
    """
    # -P: not the working folder's own `headstart` or `flows`, should it have any.
    command = [sys.executable, "-P", "-m", "prefect", "--no-prompt", "deploy", "--all"]
    try:
        result = subprocess.run(
            [*command, "--prefect-file", str(project)],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEPLOY_LIMIT_S,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        raise _not_registered(project, f"not done after {DEPLOY_LIMIT_S} s") from None
    if result.returncode != 0:
        tail = (result.stdout + result.stderr).strip().splitlines()[-8:]
        raise _not_registered(project, "\n" + "\n".join(tail))


def _not_registered(project: Path, reason: str) -> ServiceError:
    return ServiceError(
        "the deployments could not be registered",
        reason,
        f"`prefect deploy --all --prefect-file {shlex.quote(str(project))}` by hand says more",
    )
