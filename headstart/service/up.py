"""`headstart up`: a Prefect server, a worker, TensorBoard and the reports, on one machine."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from filelock import FileLock, Timeout

from headstart.addresses import past_the_proxy
from headstart.debug.traces import tensorboard
from headstart.errors import ServiceError
from headstart.service.children import LOOPBACK, Child, answers, choose_port, end_all
from headstart.service.guard import TOKEN_FILE, auth_string, keep_token
from headstart.service.record import (
    FOLDER,
    HEARTBEAT_S,
    ServiceRecord,
    Started,
    descendants,
    read_record,
    record_path,
)
from headstart.service.runs_page import RunsServer

SERVER_PORT, TENSORBOARD_PORT, RUNS_PORT = 4200, 6006, 4280
"""Prefect's and TensorBoard's own defaults, and one near them."""
START_LIMIT_S = 180.0
"""Seconds in which a server must answer; on a fresh database and two busy cores Prefect's took
60."""
NOT_INHERITED = {
    "PREFECT_UI_API_URL",
    "PREFECT_SERVER_UI_API_URL",
    "PREFECT_API_DATABASE_CONNECTION_URL",
    "PREFECT_SERVER_API_AUTH_STRING",
    "PREFECT_SERVER_API_BASE_PATH",
    "PREFECT_API_KEY",
    "PREFECT_CLIENT_CUSTOM_HEADERS",
}
"""Variables that would make the page ask another server, are an older name for one of ours, or are
for another server's eyes."""
WATCH_PERIOD_S = 1.0
NUM_RESTARTS = 5
"""Times that one child is started again before `headstart up` gives up."""
WORKER_POLL_S = 2
"""Seconds between a worker's questions for new runs; Prefect's default of 10 is for clouds."""


@dataclass(frozen=True)
class Wishes:
    """What the user chose.

    Attributes:
        store_root: The store's folder on this machine.
        location: The store as flow runs shall open it: the folder, or a URL.
        port: Port of the Prefect server; None for the default or the next free one, as below.
        tensorboard_port: Port of TensorBoard.
        images: What the forms propose as the data set; None for the definition's own.
        num_runs: Flow runs at a time.
    """

    store_root: Path
    location: str
    port: int | None
    tensorboard_port: int | None
    runs_port: int | None
    images: Path | None
    pool: str
    num_runs: int


@dataclass
class Service:
    """The running parts.

    Attributes:
        store_root: Folder of the store on this machine.
        children: The processes, in the order they were started.
    """

    store_root: Path
    record: ServiceRecord
    children: list[Child]
    _offspring: dict[str, list[Started]] = field(default_factory=dict)
    _num_restarts: dict[str, int] = field(default_factory=dict)

    def watch(self, tell: Callable[[str], None]) -> None:
        """Start again what ends, for ever.

        Args:
            tell: Called with a line for the user.

        Raises:
            ServiceError: A part ended too often.
        """
        while True:
            time.sleep(WATCH_PERIOD_S)
            self.look(tell)

    def look(self, tell: Callable[[str], None]) -> None:
        """Start again what has ended, and note what the others have started.

        Args:
            tell: Called with a line for the user.

        Raises:
            ServiceError: A part ended too often.
        """
        for child in self.children:
            if child.has_ended():
                self._revive(child, tell)
            elif child.pid is not None:
                self._offspring[child.name] = descendants([child.pid])
        if self._all_offspring() != self.record.offspring:
            with contextlib.suppress(OSError):  # a full disk ends nothing that runs
                self.note_children()

    def end_offspring(self) -> None:
        """End what the children had started when they were last looked at."""
        _end_with_descendants(self._all_offspring())

    def _all_offspring(self) -> tuple[Started, ...]:
        return tuple(one for started in self._offspring.values() for one in started)

    def _revive(self, child: Child, tell: Callable[[str], None]) -> None:
        # A run whose worker was killed must not go on unseen: the next one works on its rows.
        _end_with_descendants(self._offspring.pop(child.name, []))
        count = self._num_restarts[child.name] = self._num_restarts.get(child.name, 0) + 1
        if count > NUM_RESTARTS:
            raise ServiceError(
                f"the {child.name} keeps failing",
                f"it ended {count} times; the last lines of {child.log}:\n{child.tail()}",
                "fix the cause, then start `headstart up` again",
            )
        tell(f"the {child.name} ended and will be restarted; its log: {child.log}")
        child.start()
        self.note_children()

    def note_children(self) -> None:
        """Write the record anew, with the processes as they are."""
        started = tuple(
            Started.of(child.name, child.pid) for child in self.children if child.pid is not None
        )
        update = {"children": started, "offspring": self._all_offspring()}
        self.record = self.record.model_copy(update=update)
        self.record.write(self.store_root)


@contextmanager
def running(wishes: Wishes, tell: Callable[[str], None]) -> Iterator[Service]:
    """Start everything; at the end of the with block stop everything.

    Args:
        wishes: What the user chose.
        tell: Called with a line for the user at each step.

    Yields:
        The running parts.

    Raises:
        ServiceError: One runs over the store already, a port is taken, or a part did not start.
    """
    with ExitStack() as stack:
        stack.enter_context(_only_one(wishes.store_root))
        _end_leftovers(wishes.store_root, tell)
        service = _make(wishes, stack)
        stack.callback(record_path(wishes.store_root).unlink, missing_ok=True)
        stack.callback(service.end_offspring)  # of children that are dead by then
        server, worker, board = service.children
        for child in (server, board):
            stack.callback(child.stop)
            child.start()
        service.note_children()
        tell("starting the Prefect server and TensorBoard (their first start takes a minute)")
        wait_until_answered(f"{service.record.api_url}/health", server)
        tell("registering the deployments")
        _register(wishes, service.record)
        stack.callback(worker.stop)
        worker.start()
        service.note_children()  # before waiting: who is killed meanwhile must leave no stranger
        wait_until_answered(f"{service.record.tensorboard_url}/", board)
        _wait_for_worker(wishes.pool, worker)
        yield service


@contextmanager
def stopping_on_signals() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into what Ctrl-C does, and let nothing interrupt the stopping.

    What the caller has had ignored stays so: nohup ignores SIGHUP.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        for sign in signs:
            signal.signal(sign, signal.SIG_IGN)
        raise KeyboardInterrupt

    signs = [
        sign
        for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(sign) is not signal.SIG_IGN
    ]
    before = {sign: signal.signal(sign, interrupt) for sign in signs}
    try:
        yield
    finally:
        for sign, handler in before.items():
            signal.signal(sign, handler)


@contextmanager
def _only_one(store_root: Path) -> Iterator[None]:
    """Hold the store's lock for `headstart up`; the system frees it when the process dies."""
    path = store_root / FOLDER / "up.lock"
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        record = read_record(store_root)
        where = f" at {record.pages()['Prefect']}, process {record.up.pid}" if record else ""
        raise ServiceError(
            "another `headstart up` is already running over this store",
            f"one runs over {store_root}{where}",
            "use that one, end it with Ctrl-C, or choose another --store",
        ) from None
    except OSError as error:
        raise ServiceError(
            "`headstart up` cannot write its database, logs and lock into the store",
            f"{error.filename or path}: {error.strerror}",
            "choose a --store that can be written",
        ) from None
    try:
        yield
    finally:
        lock.release()


def _end_leftovers(store_root: Path, tell: Callable[[str], None]) -> None:
    """End what a `headstart up` that was killed has left running."""
    record = read_record(store_root)
    if record is None:
        return
    if ended := _end_with_descendants([*record.children, *record.offspring]):
        tell(f"ended {len(ended)} processes left running by a killed `headstart up`")


def _end_with_descendants(processes: Iterable[Started]) -> list[Started]:
    """End processes, and what those of them that still run have started; return all that ran."""
    alive = [process for process in processes if process.is_alive()]
    return end_all(dict.fromkeys([*alive, *descendants([process.pid for process in alive])]))


def _make(wishes: Wishes, stack: ExitStack) -> Service:
    port = choose_port(wishes.port, SERVER_PORT, "the Prefect server", stack)
    board_port = choose_port(wishes.tensorboard_port, TENSORBOARD_PORT, "TensorBoard", stack)
    runs_port = choose_port(wishes.runs_port, RUNS_PORT, "the reports", stack)
    runs = RunsServer(wishes.store_root / "runs", runs_port)
    stack.callback(runs.stop)
    # TensorBoard knows no tokens: it answers below a path that nobody can guess. Another one than
    # the token, since the pages of runs link to it.
    board_path = keep_token(wishes.store_root / FOLDER, "tensorboard-path")
    record = ServiceRecord(
        up=Started.of("headstart up", os.getpid()),
        token=keep_token(wishes.store_root / FOLDER),
        api_url=f"http://{LOOPBACK}:{port}/api",
        dashboard_url=f"http://{LOOPBACK}:{port}",
        tensorboard_url=f"http://{LOOPBACK}:{board_port}/{board_path}",
        runs_url=runs.url,
        pool=wishes.pool,
    )
    return Service(wishes.store_root, record, _children(wishes, port, board_port, board_path))


def _children(wishes: Wishes, port: int, board_port: int, board_path: str) -> list[Child]:
    logs = wishes.store_root / FOLDER / "logs"
    environment = environment_of(wishes.store_root, wishes.location, port)
    prefect = [sys.executable, "-P", "-m", "prefect"]
    serve = [sys.executable, "-P", "-m", "headstart.service.server", str(port)]
    serve += [str(wishes.store_root / FOLDER / TOKEN_FILE)]
    work = ["worker", "start", "--pool", wishes.pool, "--limit", str(wishes.num_runs)]
    work += ["--name", "headstart-up"]
    board = tensorboard.command(wishes.store_root / "runs", board_port)
    board += ["--path_prefix", f"/{board_path}"]
    return [
        Child("server", serve, environment, logs / "server.log"),
        Child("worker", [*prefect, *work], environment, logs / "worker.log"),
        Child(
            "TensorBoard",
            board,
            {**environment, **tensorboard.ENVIRONMENT},
            logs / "tensorboard.log",
        ),
    ]


def environment_of(store_root: Path, location: str, port: int) -> dict[str, str]:
    """Return the variables of a server on a port, of its worker and of its flow runs.

    Args:
        store_root: The store's folder on this machine, which holds the server's database too.
        location: The store as flow runs shall open it.
        port: Port of the Prefect server on loopback.
    """
    database = store_root / FOLDER / "prefect.db"
    token = keep_token(store_root / FOLDER)
    return {
        **{name: value for name, value in os.environ.items() if name not in NOT_INHERITED},
        **past_the_proxy(os.environ),
        "HEADSTART_STORE": location,
        "PREFECT_API_URL": f"http://{LOOPBACK}:{port}/api",
        "PREFECT_API_AUTH_STRING": auth_string(token),
        # Without it the page is served on one port and asks another.
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_API_HOST": LOOPBACK,
        # Its own pages, by either name: with Prefect's defaults any page in the browser may ask it
        # to start a run. A request without a type of content is not asked about first; for that,
        # the token, which Prefect's pages and clients fetch by themselves.
        "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": ",".join(
            f"http://{host}:{port}" for host in (LOOPBACK, "localhost")
        ),
        "PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "true",
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{database}",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_WORKER_QUERY_SECONDS": str(WORKER_POLL_S),
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_S),
        "KERAS_BACKEND": "tensorflow",
        "PYTHONUNBUFFERED": "1",
    }


def _register(wishes: Wishes, record: ServiceRecord) -> None:
    ask_with(record)
    from headstart.service.provisioning import deploy, edited_parameters, provision, write_project

    provision(wishes.pool)
    folder = wishes.store_root / FOLDER
    edited = edited_parameters(folder)
    project = write_project(folder, wishes.pool, wishes.images, Path.cwd(), edited)
    port = int(record.dashboard_url.rpartition(":")[2])
    deploy(project, environment_of(wishes.store_root, wishes.location, port))


def ask_with(record: ServiceRecord) -> None:
    """Have Prefect's client ask this service; before Prefect is imported, which reads it then."""
    os.environ["PREFECT_API_URL"] = record.api_url
    os.environ["PREFECT_API_AUTH_STRING"] = auth_string(record.token)
    os.environ.update(past_the_proxy(os.environ))


def wait_until_answered(url: str, child: Child) -> None:
    """Wait until a page answers.

    Raises:
        ServiceError: The process ended, or the page did not answer in time.
    """
    _wait(lambda: answers(url), child)


def _wait_for_worker(pool: str, worker: Child) -> None:
    from headstart.service.check import worker_is_online

    _wait(lambda: worker_is_online(pool), worker)


def _wait(is_there: Callable[[], bool], child: Child) -> None:
    deadline_s = time.monotonic() + START_LIMIT_S
    while not is_there():
        if child.has_ended() or time.monotonic() > deadline_s:
            raise ServiceError(
                f"the {child.name} did not start within {START_LIMIT_S:.0f} s",
                f"the last lines of {child.log}:\n{child.tail()}",
                "fix the cause, then start `headstart up` again",
            )
        time.sleep(0.3)
