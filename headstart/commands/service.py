"""Commands that run headstart like production: up."""

import os
import re
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from headstart.addresses import past_the_proxy
from headstart.commands.options import AsJson, StoreFolder, open_store, print_json
from headstart.errors import ConfigError, ServiceError
from headstart.tasks.progress import plain_console

app = typer.Typer()
POOL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

Port = Annotated[
    int | None,
    typer.Option(
        min=1, max=65535, help="TCP port of the Prefect server; 4200 or the next free one."
    ),
]


@app.command()
def up(
    port: Port = None,
    tensorboard_port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="TCP port of TensorBoard; 6006 or the next free one."),
    ] = None,
    runs_port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="TCP port of the reports; 4280 or the next free one."),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Data set to fill in by default in the deployments' forms.")
    ] = None,
    store: StoreFolder = None,
    pool: Annotated[str, typer.Option(help="Name of the work pool.")] = "local",
    num_runs: Annotated[
        int, typer.Option("--runs", min=1, help="Maximum number of concurrent flow runs.")
    ] = 1,
    check: Annotated[
        bool,
        typer.Option("--check", metavar="", help="Only check that everything starts and responds."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Start a Prefect server, a worker, TensorBoard and the reports; stop them on Ctrl-C."""
    if not POOL_NAME.fullmatch(pool) or pool.startswith("prefect"):
        raise ConfigError(
            "invalid name for a work pool: use up to 64 letters, digits, dots, dashes and "
            "underscores, not beginning with prefect",
            repr(pool),
            "choose another --pool",
        )
    opened = open_store(store)
    root = opened.root
    if check:
        _check(root, pool, as_json)
        return
    if images is not None and not images.exists():
        raise ServiceError(
            "--images names a path that does not exist", f"{images} does not exist", "check it"
        )
    from headstart.service.up import Wishes, running, stopping_on_signals

    console = plain_console(stderr=True)

    def tell(text: str) -> None:
        console.print(text, soft_wrap=True)

    wishes = Wishes(
        root, opened.location, port, tensorboard_port, runs_port, images, pool, num_runs
    )
    try:
        with stopping_on_signals(), running(wishes, tell) as service:
            if as_json:
                print_json(service.record.model_dump(mode="json"))
            else:
                _print_pages(plain_console(), service.record.pages())
                tell("to use the prefect command and your own scripts, first run in their shell:")
                named = service.record.variables().items()
                tell("export " + " ".join(f"{name}={value}" for name, value in named))
            tell("Ctrl-C stops everything; the store and the runs are kept")
            service.watch(tell)
    except KeyboardInterrupt:
        tell("stopped")


def _print_pages(console: Console, pages: dict[str, str]) -> None:
    for name, url in pages.items():  # each on a line of its own, to be copied
        console.print(f"{name:<12} {url}", soft_wrap=True)


def _check(root: Path, pool: str, as_json: bool) -> None:
    from headstart.launch import prefect_url, service_auth
    from headstart.service.check import check

    url = prefect_url(root)
    if url is not None:
        os.environ["PREFECT_API_URL"] = url  # before Prefect is imported, which reads it then
        if auth := service_auth(url, root):
            os.environ["PREFECT_API_AUTH_STRING"] = auth
        os.environ.update(past_the_proxy(os.environ))
    findings = check(root, url, pool)
    if as_json:
        print_json([vars(finding) for finding in findings])
    else:
        console = plain_console()
        for finding in findings:
            style = "green" if finding.is_well else "bold red"
            console.print("ok      " if finding.is_well else "missing ", style=style, end="")
            console.print(f"{finding.what:<12} {finding.detail}", soft_wrap=True)
    if not all(finding.is_well for finding in findings):
        raise typer.Exit(code=ServiceError.exit_code)
