"""`headstart up --check`: is what production needs there, and does it answer?"""

from dataclasses import dataclass
from pathlib import Path

from headstart.addresses import without_secrets
from headstart.launch import is_reachable
from headstart.service.children import answers
from headstart.service.record import ServiceRecord, running_service


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: What was looked at, in a few words for the terminal.
        detail: Where it is, or what is wrong.
    """

    what: str
    is_well: bool
    detail: str


def check(store_root: Path, api_url: str | None, pool: str) -> list[Finding]:
    """Look at a running installation.

    Args:
        store_root: Folder of the store that the installation serves.
        api_url: The Prefect server's address; None where none is known.
        pool: Name of the work pool.

    Returns:
        What was looked at, in the order in which things need each other; nothing is asked of a
        server that does not respond.
    """
    if api_url is None:
        return [Finding("Prefect server", False, "no server is known: `headstart up` starts one")]
    record = running_service(store_root)
    shown = without_secrets(api_url)
    if not is_reachable(api_url):
        findings = [Finding("Prefect server", False, f"{shown} does not respond")]
    else:
        findings = _ask(shown, pool)
    return findings + (_pages(record) if record is not None else [])


def _ask(shown: str, pool: str) -> list[Finding]:
    import httpx

    try:
        return [Finding("Prefect server", True, shown), *_ask_server(pool)]
    except (httpx.HTTPError, ValueError) as error:  # wants a password, or is something else
        reason = without_secrets(str(error)).partition("\n")[0] or type(error).__name__
        return [Finding("Prefect server", False, f"{shown} responds, but: {reason}")]


def worker_is_online(pool: str) -> bool:
    """Say whether a worker takes the runs of a work pool of the server in PREFECT_API_URL."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        workers = client.read_workers_for_work_pool(pool)
    return any(worker.status == "ONLINE" for worker in workers)


def _ask_server(pool: str) -> list[Finding]:
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    from headstart.service.provisioning import (
        AUTOMATION,
        deployment_names,
        find_automation,
        has_gpu_limit,
    )

    with get_client(sync_client=True) as client:
        try:
            kind = client.read_work_pool(pool).type
        except ObjectNotFound:
            return [Finding("work pool", False, f"there is no work pool named {pool}")]
        online = worker_is_online(pool)
        flows = {flow.id: flow.name for flow in client.read_flows()}
        there = {f"{flows.get(one.flow_id)}/{one.name}" for one in client.read_deployments()}
        missing = [name for name in deployment_names() if name not in there]
        has_automation = find_automation(client) is not None
        has_limit = has_gpu_limit(client)
    return [
        Finding("work pool", True, f"{pool}, of type {kind}"),
        Finding("worker", online, "online" if online else f"no worker takes runs from {pool}"),
        Finding(
            "deployments",
            not missing,
            f"missing: {', '.join(missing)}" if missing else ", ".join(deployment_names()),
        ),
        Finding("GPU limit", has_limit, "one task at a time" if has_limit else "not set"),
        Finding("automation", has_automation, AUTOMATION if has_automation else "not set"),
    ]


def _pages(record: ServiceRecord) -> list[Finding]:
    pages = {"TensorBoard": f"{record.tensorboard_url}/", "reports": record.runs_url}
    return [
        Finding(name, answers(url), url if answers(url) else f"{url} does not respond")
        for name, url in pages.items()
    ]
