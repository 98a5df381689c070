"""The parts of `headstart up` that need no server."""

import http.client
import http.server
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from typer.testing import CliRunner

from headstart.cli import app
from headstart.errors import ConfigError, ServiceError
from headstart.service import provisioning
from headstart.service.check import check
from headstart.service.children import LOOPBACK, Child, answers, choose_port, end_all
from headstart.service.guard import keep_token
from headstart.service.record import (
    ServiceRecord,
    Started,
    birth_of,
    descendants,
    read_record,
    running_service,
)
from headstart.service.runs_page import RunsServer
from headstart.service.up import (
    NUM_RESTARTS,
    Service,
    Wishes,
    _end_leftovers,
    environment_of,
    running,
    stopping_on_signals,
)

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, subprocess, sys, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'],"
    " start_new_session=True)\n"
    "print('ready', flush=True)\n"
    "time.sleep(600)\n",
]


def make_record(pid: int) -> ServiceRecord:
    return ServiceRecord(
        up=Started.of("headstart up", pid),
        api_url="http://127.0.0.1:4200/api",
        dashboard_url="http://127.0.0.1:4200",
        tensorboard_url="http://127.0.0.1:6006",
        runs_url="http://127.0.0.1:4280",
        pool="local",
    )


def test_a_record_counts_while_its_process_runs(tmp_path: Path) -> None:
    assert running_service(tmp_path) is None
    record = make_record(os.getpid())
    record.write(tmp_path)
    assert running_service(tmp_path) == record
    # The number of the process is in use again, by another one that was started later.
    later = record.up.model_copy(update={"birth": record.up.birth - 1})
    record.model_copy(update={"up": later}).write(tmp_path)
    assert running_service(tmp_path) is None
    assert read_record(tmp_path) is not None


@pytest.mark.parametrize("text", ["", "{}", "no json"])
def test_a_damaged_record_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "service").mkdir()
    (tmp_path / "service" / "service.json").write_text(text)
    assert read_record(tmp_path) is None


def test_a_process_that_has_ended_was_never_born() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    assert birth_of(process.pid) is None
    assert birth_of(os.getpid()) == birth_of(os.getpid()) is not None


def test_stopping_a_child_ends_what_it_started_in_other_sessions_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headstart.service.children.STOP_LIMIT_S", 0.2)
    child = Child("stubborn", STUBBORN, dict(os.environ), tmp_path / "logs" / "child.log")
    child.start()
    while "ready" not in child.tail():
        assert not child.has_ended(), child.tail()
    assert child.pid is not None
    (grandchild,) = descendants([child.pid])
    child.stop()
    assert child.has_ended()
    assert not grandchild.is_alive()


def test_a_child_that_does_not_start_leaves_its_last_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such database')"]
    child = Child("server", command, dict(os.environ), tmp_path / "server.log")
    child.start()
    while not child.has_ended():
        pass
    assert child.tail() == "no such database"
    child.stop()


def test_a_part_that_keeps_ending_is_started_again_and_given_up_at_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headstart.service.up.WATCH_PERIOD_S", 0.05)
    command = [sys.executable, "-c", "raise SystemExit('broken')"]
    child = Child("worker", command, dict(os.environ), tmp_path / "worker.log")
    service = Service(tmp_path, make_record(os.getpid()), [child])
    child.start()
    told: list[str] = []
    with pytest.raises(ServiceError, match=r"broken(.|\n)*broken"):
        service.watch(told.append)
    assert len(told) == NUM_RESTARTS
    assert str(child.log) in told[0]
    noted = read_record(tmp_path)
    assert noted is not None
    assert [(one.name, one.pid) for one in noted.children] == [("worker", child.pid)]


PARENT = [
    sys.executable,
    "-c",
    "import subprocess, sys, time\n"
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'],"
    " start_new_session=True)\n"
    "time.sleep(600)\n",
]


def kill(child: Child) -> None:
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    while not child.has_ended():
        pass


@pytest.fixture
def family(tmp_path: Path) -> Iterator[tuple[Child, Started]]:
    """A worker that was killed, and its flow run, which goes on."""
    child = Child("worker", PARENT, dict(os.environ), tmp_path / "worker.log")
    child.start()
    assert child.pid is not None
    while not (found := descendants([child.pid])):
        assert not child.has_ended(), child.tail()
    yield child, found[0]
    child.stop()
    end_all(found)


def test_the_runs_of_a_worker_that_is_given_up_are_ended(
    tmp_path: Path, family: tuple[Child, Started], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headstart.service.up.NUM_RESTARTS", 0)
    child, run = family
    service = Service(tmp_path, make_record(os.getpid()), [child])
    service.look(print)
    kill(child)
    with pytest.raises(ServiceError):
        service.look(print)
    assert not run.is_alive()


def test_the_runs_of_a_worker_that_died_unseen_are_ended_at_the_end(
    tmp_path: Path, family: tuple[Child, Started]
) -> None:
    child, run = family
    service = Service(tmp_path, make_record(os.getpid()), [child])
    service.look(print)
    kill(child)
    service.end_offspring()
    assert not run.is_alive()


def test_what_outlived_a_killed_up_and_its_worker_is_ended_by_the_next(
    tmp_path: Path, family: tuple[Child, Started]
) -> None:
    child, run = family
    Service(tmp_path, make_record(os.getpid()), [child]).look(print)
    kill(child)
    told: list[str] = []
    _end_leftovers(tmp_path, told.append)
    assert not run.is_alive()
    assert told == ["ended 1 processes left running by a killed `headstart up`"]


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopping_on_signals():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_ending_processes_tells_which_still_ran() -> None:
    ended, running = subprocess.Popen(["true"]), subprocess.Popen(SLEEP)
    processes = [Started.of("a", ended.pid), Started.of("b", running.pid)]
    ended.wait()
    assert [process.name for process in end_all(processes)] == ["b"]
    assert running.wait() < 0


def test_a_port_that_is_taken_is_passed_over_or_refused() -> None:
    with socket.socket() as taken, ExitStack() as stack:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert choose_port(None, port, "a page", stack) > port
        with pytest.raises(ServiceError, match=f"{port} is taken"):
            choose_port(port, 0, "a page", stack)


def test_a_port_is_promised_once_until_it_is_given_back() -> None:
    with ExitStack() as stack:
        promised = choose_port(None, 20_000, "a page", stack)
        assert choose_port(None, promised, "another", stack) > promised
    with ExitStack() as stack:
        assert choose_port(promised, 0, "a page", stack) == promised


CONFIGURED = "dataset: {images: /data/photos}\nbackbone: {name: tiny}\nhead: {kind: mlp}\n"


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[RunsServer]:
    folder = tmp_path / "runs"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "report.html").write_text("<h1>report</h1>")
    (tmp_path / "secret").write_text("secret")
    (folder / "link").symlink_to(tmp_path / "secret")
    served = RunsServer(folder, 0)
    yield served
    served.stop()


def test_the_first_page_has_every_run_with_its_report_and_accuracy(
    runs: RunsServer, tmp_path: Path
) -> None:
    folder = tmp_path / "runs"
    metrics = {"test": {"accuracy": 0.9375}, "notes": "none"}
    fields = {
        "report": str(folder / "b <i>" / "report.html"),
        "seconds": 1234.5,
        "metrics": metrics,
    }
    for name, text in (("b <i>", json.dumps(fields)), ("half", "{"), ("killed", None)):
        (folder / name).mkdir()
        (folder / name / "config.yaml").write_text(CONFIGURED)
        if text is not None:
            (folder / name / "run.json").write_text(text)
    os.utime(folder / "b <i>" / "run.json", (2e9, 2e9))
    (folder / "elsewhere").symlink_to(folder.parent)

    def read(query: str) -> str:
        with urllib.request.urlopen(f"{runs.url}/{query}") as reply:
            return str(reply.read().decode())

    page = read("")
    assert '<a href="b%20%3Ci%3E/report.html">b &lt;i&gt;</a>' in page
    assert "test 93.8 %" in page
    assert "1,234.5" in page
    assert page.index("b &lt;i&gt;") < page.index("half")
    assert page.count("unfinished") == 2
    assert "elsewhere" not in page
    by_name = read("?sort=name")
    assert by_name.index(">half<") < by_name.index("b &lt;i&gt;")
    compared = read("?run=b%20%3Ci%3E&run=killed")
    assert "no image was held out by both" in compared
    assert "All runs" in compared
    assert ask(runs, "/b%20%3Ci%3E/") == 200


def ask(served: RunsServer, path: str, method: str = "GET", host: str | None = None) -> int:
    address = served.url.removeprefix("http://")
    connection = http.client.HTTPConnection(address, timeout=10)
    connection.request(method, path, headers={"Host": host or address})
    status = connection.getresponse().status
    connection.close()
    return status


def test_flow_runs_open_the_bucket_and_not_its_mirror(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADSTART_MIRROR", str(tmp_path / "mirrors"))
    wished: list[Wishes] = []

    def stop(wishes: Wishes, tell: object) -> None:
        wished.append(wishes)
        raise KeyboardInterrupt

    monkeypatch.setattr("headstart.service.up.running", stop)
    url = f"memory://{tmp_path.name}/prefix"
    assert CliRunner().invoke(app, ["up", "--store", url]).exit_code == 0
    (wishes,) = wished
    assert wishes.store_root.parent == tmp_path / "mirrors"
    environment = environment_of(wishes.store_root, wishes.location, 4200)
    assert environment["HEADSTART_STORE"] == url


def test_the_servers_database_is_the_stores_whatever_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PREFECT_SERVER_DATABASE_CONNECTION_URL", "PREFECT_API_DATABASE_CONNECTION_URL"):
        monkeypatch.setenv(name, "postgresql+asyncpg://production")
    environment = environment_of(tmp_path, str(tmp_path), 4200)
    named = [value for name, value in environment.items() if "CONNECTION_URL" in name]
    assert named == [f"sqlite+aiosqlite:///{tmp_path}/service/prefect.db"]


def test_only_the_servers_own_pages_may_ask_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.settings.models.root import Settings

    monkeypatch.setenv("PREFECT_SERVER_CORS_ALLOWED_ORIGINS", "*")
    monkeypatch.setenv("PREFECT_SERVER_CSRF_PROTECTION_ENABLED", "false")
    for name, value in environment_of(tmp_path, str(tmp_path), 4217).items():
        monkeypatch.setenv(name, value)
    api = Settings().server.api
    assert api.cors_allowed_origins == "http://127.0.0.1:4217,http://localhost:4217"
    assert api.csrf_protection_enabled


def test_the_token_is_for_its_owners_eyes_and_stays_the_same(tmp_path: Path) -> None:
    token = keep_token(tmp_path / "service")
    assert len(token) > 40
    assert keep_token(tmp_path / "service") == token
    make_record(os.getpid()).write(tmp_path)
    private = [path for path in (tmp_path / "service").iterdir() if path.stat().st_mode & 0o077]
    assert private == []


def test_what_another_servers_clients_send_is_not_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_KEY", "pnu_of_the_cloud")
    monkeypatch.setenv("PREFECT_CLIENT_CUSTOM_HEADERS", '{"X-Secret": "pnu_of_the_cloud"}')
    environment = environment_of(tmp_path, str(tmp_path), 4200)
    assert not any("pnu_of_the_cloud" in value for value in environment.values())
    token = keep_token(tmp_path / "service")
    assert environment["PREFECT_API_AUTH_STRING"] == f"headstart:{token}"
    assert environment["DO_NOT_TRACK"] == "1"


def test_a_proxy_is_passed_on_the_way_to_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "a.example")
    environment = environment_of(tmp_path, str(tmp_path), 4200)
    assert environment["no_proxy"] == environment["NO_PROXY"] == "a.example,127.0.0.1,localhost"


def test_a_store_without_room_for_the_service_is_refused(tmp_path: Path) -> None:
    (tmp_path / "service").write_text("a file where a folder shall be")
    wishes = Wishes(tmp_path, str(tmp_path), None, None, None, None, "local", 1)
    with pytest.raises(ServiceError, match="cannot write its database"), running(wishes, print):
        pass


@pytest.mark.parametrize("pool", ["", "a/b", "prefect-managed", "x" * 65])
def test_a_pool_that_prefect_would_refuse_is_refused_first(tmp_path: Path, pool: str) -> None:
    result = CliRunner().invoke(app, ["up", "--pool", pool, "--store", str(tmp_path / "store")])
    assert isinstance(result.exception, ConfigError)
    assert not (tmp_path / "store").exists()


class Guarded(http.server.BaseHTTPRequestHandler):
    """Answers that it is well, and asks for a password for all else."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/api/health" else 401)
        self.end_headers()

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_check_says_that_a_server_wants_a_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with http.server.ThreadingHTTPServer((LOOPBACK, 0), Guarded) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        url = f"http://user:secret@{LOOPBACK}:{served.server_address[1]}/api"
        with temporary_settings({PREFECT_API_URL: url}):
            (finding,) = check(tmp_path, url, "local")
        served.shutdown()
    assert not finding.is_well
    assert "401" in finding.detail
    assert "secret" not in finding.detail


def test_a_registration_that_hangs_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provisioning, "DEPLOY_LIMIT_S", 0.01)
    with pytest.raises(ServiceError, match=r"not done after 0\.01 s"):
        provisioning.deploy(tmp_path / "prefect.yaml", dict(os.environ))


def test_reports_are_served_and_nothing_outside_their_folder(runs: RunsServer) -> None:
    assert answers(f"{runs.url}/a/report.html")
    with urllib.request.urlopen(f"{runs.url}/a/report.html") as reply:
        assert "script-src 'none'" in reply.headers["Content-Security-Policy"]
    assert ask(runs, "/a/report.html", "HEAD") == 200
    assert ask(runs, "/../secret") == 404
    assert ask(runs, "/%2e%2e/secret") == 404
    assert ask(runs, "/link") == 404


@pytest.mark.parametrize("name", ["index.html", "index.htm"])
def test_the_page_of_a_folder_leads_nowhere_else(
    runs: RunsServer, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "runs" / "a"
    assert ask(runs, "/a/") == 200
    (folder / name).symlink_to(tmp_path / "secret")
    assert ask(runs, "/a/") == 404
    (folder / name).unlink()
    (folder / name).symlink_to(folder / "report.html")
    assert ask(runs, "/a/") == 200


def test_what_is_no_request_is_answered_and_not_told_of_in_the_terminal(
    runs: RunsServer, capfd: pytest.CaptureFixture[str]
) -> None:
    assert ask(runs, "/%00") == 400
    assert ask(runs, "/a/report.html", host="[") == 400
    host, _, port = runs.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as gone:
        # Reset, not closed, while the answer is under way.
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        gone.send(b"GET /a/report.html HTTP/1.0\r\nHost: localhost\r\n")
    assert ask(runs, "/a/report.html") == 200
    assert capfd.readouterr().err == ""


def test_reports_cannot_be_changed(runs: RunsServer) -> None:
    assert [ask(runs, "/a/report.html", method) for method in ("PUT", "POST", "DELETE")] == [
        501
    ] * 3


def test_reports_are_not_served_under_a_strangers_name(runs: RunsServer) -> None:
    assert ask(runs, "/a/report.html", host="localhost:1") == 200
    assert ask(runs, "/a/report.html", host="rebound.example") == 403


def test_check_without_a_server_says_how_to_start_one(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["up", "--check", "--store", str(tmp_path / "store")])
    assert result.exit_code == ServiceError.exit_code
    assert "headstart up" in result.stdout


@pytest.mark.parametrize("url", ["http://host:no port/", "http://127.0.0.1:9/", "no url"])
def test_a_page_that_is_none_does_not_answer(url: str) -> None:
    assert not answers(url)


def test_a_data_set_that_is_not_there_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app, ["up", "--images", str(tmp_path / "gone"), "--store", str(tmp_path / "store")]
    )
    assert isinstance(result.exception, ServiceError)
