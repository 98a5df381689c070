"""How a run is started: TensorFlow without its noise, Prefect where there is a server."""

import contextlib
import http.client
import importlib
import os
import tempfile
import time
import tomllib
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import headstart
from headstart.addresses import open_url, past_the_proxy, without_secrets
from headstart.config import Config
from headstart.errors import ConfigError, RecordError, ServiceError
from headstart.reading import MAX_CONFIG_BYTES, read_regular
from headstart.tasks.budgeting.clock import counting_from_now
from headstart.tasks.progress import Reporter, use_reporter
from headstart.tasks.running.tensorflow import import_tensorflow

SERVER_TIMEOUT_S = 1.0
"""A server on this machine or this network answers within milliseconds."""
SERVER_START_LIMIT_S = 180
"""A temporary server with a new database took 60 s on two busy cores; Prefect's default is 20."""

SEE_AGAIN = (
    "the temporary server has stopped and its record is kept; to see this run again: "
    "`prefect server start`, then http://127.0.0.1:4200/runs"
)


def process_seconds() -> float:
    """Return the seconds since headstart was imported, TensorFlow's import and all included.

    Not the age of the process: a shell hands its own to the last command of ``a && b``.
    """
    return time.monotonic() - headstart.IMPORTED_AT_S


def prefect_url(store_root: Path | None = None) -> str | None:
    """Return the API address that Prefect is set to, without importing Prefect.

    Args:
        store_root: The store; a `headstart up` that runs over it counts where nothing is set.

    Returns:
        The first of those that name one, in the order in which Prefect reads them: the variable
        PREFECT_API_URL, .env, prefect.toml, pyproject.toml, the active profile; else the address
        of `headstart up`; else None.
    """
    named = (
        os.environ.get("PREFECT_API_URL")
        or _dotenv_url(Path(".env"))
        or _toml_url(Path("prefect.toml"), "api", "url")
        or _toml_url(Path("pyproject.toml"), "tool", "prefect", "api", "url")
        or _profile_url()
    )
    if named or store_root is None:
        return named or None
    from headstart.service.record import running_service

    service = running_service(store_root)
    return service.api_url if service is not None else None


def service_auth(url: str, store_root: Path) -> str | None:
    """Return what a `headstart up` over a store wants for PREFECT_API_AUTH_STRING.

    Args:
        url: API address that will be asked.
        store_root: Folder of the store that the service was started over.

    Returns:
        The text; None where the address is another server's, which has what is set for it.
    """
    from headstart.service.guard import auth_string
    from headstart.service.record import running_service

    service = running_service(store_root)
    is_its = service is not None and service.token and url.rstrip("/") == service.api_url
    return auth_string(service.token) if service is not None and is_its else None


def _dotenv_url(path: Path) -> str | None:
    if not path.is_file():
        return None
    from dotenv import dotenv_values

    with contextlib.suppress(OSError, UnicodeDecodeError):
        return dotenv_values(path).get("PREFECT_API_URL")
    return None


def _toml_url(path: Path, *keys: str) -> str | None:
    """Return a string deep in a TOML file; None where the file or the string is not there."""
    try:
        value: Any = _read_toml(path)
        for key in keys:
            value = value[key]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return value if isinstance(value, str) else None


def _read_toml(path: Path) -> dict[str, Any]:
    text = read_regular(path, MAX_CONFIG_BYTES).decode()
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("the values are nested too deeply") from None


def _profile_url() -> str | None:
    home = Path(os.path.expanduser(os.environ.get("PREFECT_HOME", "~/.prefect")))  # noqa: PTH111
    path = Path(os.environ.get("PREFECT_PROFILES_PATH", home / "profiles.toml"))
    name = os.environ.get("PREFECT_PROFILE")
    try:
        chosen = name or _read_toml(path).get("active", "")
    except (OSError, ValueError):
        return None
    return _toml_url(path, "profiles", str(chosen), "PREFECT_API_URL")


def is_reachable(url: str) -> bool:
    """Say whether a Prefect server answers at an API address, be it by asking for a key.

    Prefect Cloud, and a server behind a password, refuse who sends none; Prefect's client sends it.
    """
    health = f"{without_secrets(url).rstrip('/')}/health"
    try:
        with open_url(health, SERVER_TIMEOUT_S) as reply:
            return bool(reply.status == 200)
    except urllib.error.HTTPError as refusal:
        return refusal.code in (401, 403)
    except (OSError, ValueError, http.client.HTTPException):  # the last: no port, or no HTTP
        return False


def provide_temporary_folder(store_root: Path | None) -> None:
    """Have temporary files go into the store where no other folder for them can be written.

    Raises:
        RecordError: The store cannot be written either.
    """
    try:
        tempfile.gettempdir()
    except FileNotFoundError as error:
        folder = None if store_root is None else store_root / "tmp"
        try:
            if folder is None:
                raise OSError("no store")
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError:
            raise no_temporary_folder(error) from None
        os.environ["TMPDIR"] = tempfile.tempdir = str(folder)


def no_temporary_folder(error: FileNotFoundError) -> RecordError:
    """Say in a user's words that there is no folder for temporary files."""
    return RecordError(
        "no folder for temporary files can be written",
        str(error.strerror or error),
        "set TMPDIR to a folder that can be written",
    )


def refuse_overwriting(out: Path | None) -> None:
    """Keep the model of an earlier run, unless somebody says that it may be replaced.

    Raises:
        ConfigError: It holds a finished run.
    """
    if out is not None and (out.expanduser() / "run.json").is_file():
        raise ConfigError(
            "--out holds a finished run, which would be replaced",
            str(out),
            "choose another folder, or add --overwrite (overwrite=True in Python)",
        )


@counting_from_now()
def run_flow(
    name: str,
    config: Config,
    store: Path | None,
    out: Path | None,
    record: bool,
    reporter: Reporter,
) -> Any:
    """Run a flow: recorded where a Prefect server is reachable, plainly otherwise.

    Args:
        name: The flow headstart.flows.<name>.<name>, which takes a configuration, a store and a
            folder for the results.
        config: Of the type that this flow takes.
        store: Folder of the store; the default one where None.
        out: Folder for the results; one under the store where None.
        record: Start a temporary server where none is reachable.
        reporter: Prints the stages and progress bars.

    Raises:
        ServiceError: The Prefect server refuses to record, or is gone before the end.
    """
    from headstart.tasks.store.remote_store import folder_here

    provide_temporary_folder(folder_here(store))
    url = prefect_url(folder_here(store))
    reachable = url is not None and is_reachable(url)
    _quieten_prefect()
    if reachable:
        reporter.note(f"recorded by the Prefect server at {without_secrets(str(url))}")
    elif record:
        reporter.note("recorded by a temporary Prefect server (it takes some seconds to start)")
    else:
        where = f"no server responds at {without_secrets(url)}" if url else "none is set"
        reporter.note(f"not recorded: no Prefect server ({where}); --record starts one")
    is_recorded = reachable or record
    if is_recorded:  # Prefect's threads would write while TensorFlow's noise is held back
        import_tensorflow()
    module = importlib.import_module(f"headstart.flows.{name}")
    with use_reporter(reporter):
        if not is_recorded and hasattr(module, "run"):
            return module.run(config, store, out)
        flow = getattr(module, name)
        if not is_recorded:
            return flow.fn(config, store, out)
        auth = service_auth(str(url), folder_here(store)) if reachable else None
        with (
            _prefect_at(url if reachable else None, auth),
            _without_password_in_parameters(store) as place,
        ):
            done = flow(config, place, out)
        if not reachable:
            reporter.note(SEE_AGAIN)
        return done


@contextlib.contextmanager
def _without_password_in_parameters(store: Path | None) -> Iterator[Path | None]:
    """Have a flow open a store that it is not told of: Prefect shows a run's parameters to all."""
    if store is None or without_secrets(str(store)) == str(store):
        yield store
        return
    before = os.environ.get("HEADSTART_STORE")
    os.environ["HEADSTART_STORE"] = str(store)
    try:
        yield None
    finally:
        if before is None:
            del os.environ["HEADSTART_STORE"]
        else:
            os.environ["HEADSTART_STORE"] = before


@contextlib.contextmanager
def _prefect_at(url: str | None, auth: str | None = None) -> Iterator[None]:
    """Have Prefect talk to a server, or start a temporary one where None, inside a with block.

    By settings, not by the environment: that is the caller's, and Prefect has read it already
    when an earlier run of the process imported it.
    """
    import httpx
    from prefect.settings import (
        PREFECT_API_AUTH_STRING,
        PREFECT_API_URL,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        PREFECT_SERVER_ALLOW_EPHEMERAL_MODE,
        PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
        temporary_settings,
    )

    from headstart.service.record import HEARTBEAT_S

    # But for this, which Prefect's client reads there alone, and which is true for all.
    os.environ.update(past_the_proxy(os.environ))
    updates = {
        **({PREFECT_API_AUTH_STRING: auth} if auth else {}),
        PREFECT_API_URL: url,
        # Of a run that is silent for longer `headstart up` says that it has crashed.
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY: HEARTBEAT_S,
        PREFECT_SERVER_ALLOW_EPHEMERAL_MODE: url is None,
        PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS: SERVER_START_LIMIT_S,
    }
    try:
        with temporary_settings(updates):
            yield
    except httpx.HTTPError as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ServiceError(
            "the Prefect server failed or rejected a request while the run was being recorded",
            without_secrets(f"{url or 'the temporary one'}: {reason}"),
            "check the server, or set PREFECT_API_URL (and PREFECT_API_KEY, if it asks for one); "
            "what is finished is kept, and the same command does the rest",
        ) from error


def _quieten_prefect() -> None:
    """Keep Prefect's lines off the console, where the stages have their own; the UI has all.

    Its errors too: of a run that fails it prints a traceback, and headstart the error itself.
    """
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("DO_NOT_TRACK", "1")  # its client tells of its imports, too
