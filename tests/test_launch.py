import http.server
import io
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from headstart.addresses import past_the_proxy, without_secrets
from headstart.cli import main
from headstart.config import Config
from headstart.errors import ServiceError
from headstart.launch import _prefect_at, is_reachable, prefect_url, run_flow
from headstart.service.record import ServiceRecord, Started
from headstart.tasks.progress import Reporter
from headstart.tasks.running.tensorflow import NOISE, absent
from headstart.tasks.store.remote_store import folder_here
from tests.pipeline import Pipeline, statuses


class Healthy(http.server.BaseHTTPRequestHandler):
    """Says that it is well, to anybody or to holders of a key, and asks for one for all else."""

    def do_GET(self) -> None:
        self.send_response({"/api/health": 200, "/other/health": 404}.get(self.path, 401))
        self.end_headers()

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Healthy) as served:
        thread = threading.Thread(target=served.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{served.server_address[1]}/api"
        served.shutdown()
        thread.join()


def write_profile(text: str) -> None:
    folder = Path(os.environ["PREFECT_HOME"])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "profiles.toml").write_text(text)


def test_no_server_is_known_where_none_is_set() -> None:
    assert prefect_url() is None


def test_the_server_of_the_active_profile_is_known() -> None:
    write_profile('active = "b"\n[profiles.a]\n[profiles.b]\nPREFECT_API_URL = "http://b/api"\n')
    assert prefect_url() == "http://b/api"


def test_the_environment_beats_the_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    write_profile('active = "a"\n[profiles.a]\nPREFECT_API_URL = "http://a/api"\n')
    monkeypatch.setenv("PREFECT_PROFILE", "none")
    assert prefect_url() is None
    monkeypatch.setenv("PREFECT_API_URL", "http://c/api")
    assert prefect_url() == "http://c/api"


def test_files_of_the_working_folder_name_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each beats those before it: the order in which Prefect itself reads them."""
    monkeypatch.chdir(tmp_path)
    write_profile('active = "a"\n[profiles.a]\nPREFECT_API_URL = "http://profile/api"\n')
    assert prefect_url() == "http://profile/api"
    Path("pyproject.toml").write_text('[tool.prefect.api]\nurl = "http://pyproject/api"\n')
    assert prefect_url() == "http://pyproject/api"
    Path("prefect.toml").write_text('[api]\nurl = "http://prefect-toml/api"\n')
    assert prefect_url() == "http://prefect-toml/api"
    Path(".env").write_text("PREFECT_API_URL=http://dotenv/api\n")
    assert prefect_url() == "http://dotenv/api"
    monkeypatch.setenv("PREFECT_API_URL", "http://variable/api")
    assert prefect_url() == "http://variable/api"


def test_prefect_reads_the_files_in_the_same_order(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.prefect.api]\nurl = "http://a/api"\n')
    (tmp_path / "prefect.toml").write_text('[api]\nurl = "http://b/api"\n')
    code = "from prefect.settings import get_current_settings as s; print(s().api.url)"
    told = []
    for dotenv in ("", "PREFECT_API_URL=http://c/api\n"):
        (tmp_path / ".env").write_text(dotenv)
        result = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        told.append(result.stdout.strip())
    assert told == ["http://b/api", "http://c/api"]


@pytest.mark.parametrize("text", ["[api", "[api]", "api = 1", "[api]\nurl = 1"])
def test_a_prefect_toml_that_names_none_is_passed_over(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("prefect.toml").write_text(text)
    assert prefect_url() is None


def test_a_running_up_over_the_store_is_known_where_nothing_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = ServiceRecord(
        up=Started.of("headstart up", os.getpid()),
        api_url="http://up/api",
        dashboard_url="http://up",
        tensorboard_url="http://board",
        runs_url="http://runs",
        pool="local",
    )
    record.write(tmp_path)
    assert prefect_url(tmp_path) == "http://up/api"
    assert prefect_url(tmp_path / "other") is None
    monkeypatch.setenv("PREFECT_API_URL", "http://variable/api")
    assert prefect_url(tmp_path) == "http://variable/api"


@pytest.mark.parametrize("text", ["", "active = 1", "not toml [", 'active = "gone"\n[profiles]'])
def test_a_profile_that_cannot_be_read_names_no_server(text: str) -> None:
    write_profile(text)
    assert prefect_url() is None


def test_a_server_is_reachable_where_its_health_answers(server: str) -> None:
    assert is_reachable(server)
    assert is_reachable(server + "/")
    assert not is_reachable(server.replace("/api", "/other"))


def test_a_server_that_asks_for_a_key_is_reachable(server: str) -> None:
    assert is_reachable(server.replace("/api", "/accounts/a/workspaces/b"))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://user:pass@host:4200/api", "http://host:4200/api"),
        ("http://user:p@ss@host/a@b", "http://host/a@b"),
        ("http://host:4200/api", "http://host:4200/api"),
        ("no address", "no address"),
        ("", ""),
        ("401 for 'http://u:p@h/a' and sftp://v:q@i", "401 for 'http://h/a' and sftp://i"),
        ("http://host/a, ask me@home", "http://host/a, ask me@home"),
    ],
)
def test_an_address_is_shown_without_its_password(url: str, shown: str) -> None:
    assert without_secrets(url) == shown


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/api", "no address", "", "http://host:no port/api", "http://[/api"]
)
def test_a_server_that_does_not_answer_is_not_reachable(url: str) -> None:
    assert not is_reachable(url)


def test_a_temporary_server_gets_the_time_that_a_busy_machine_takes() -> None:
    from prefect.settings import get_current_settings

    with _prefect_at(None):
        ephemeral = get_current_settings().server.ephemeral
        assert (ephemeral.enabled, ephemeral.startup_timeout_seconds) == (True, 180)


def test_a_run_gives_signs_of_life_as_often_as_the_automation_wants_them() -> None:
    from prefect.settings import get_current_settings

    from headstart.service.provisioning import SILENCE_LIMIT_S

    with _prefect_at("http://127.0.0.1:9/api"):
        assert 3 * (get_current_settings().flows.heartbeat_frequency or 0) == SILENCE_LIMIT_S


def test_a_server_that_refuses_to_record_is_named(
    finished: Pipeline, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", server)
    quiet = Reporter(Console(quiet=True))
    with pytest.raises(ServiceError, match="401") as caught:
        run_flow("transfer", finished.config(), finished.store.root, None, False, quiet)
    assert server in caught.value.received


def test_a_server_that_refuses_is_told_of_without_its_password(
    finished: Pipeline, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", server.replace("://", "://user:secret@"))
    quiet = Reporter(Console(quiet=True))
    with pytest.raises(ServiceError, match="401") as caught:
        run_flow("transfer", finished.config(), finished.store.root, None, False, quiet)
    assert server in caught.value.received
    assert "secret" not in str(caught.value)


def test_this_machine_is_asked_past_a_proxy(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("urllib.request._opener", None)  # an earlier one knows of no proxy
    assert is_reachable(server)
    assert is_reachable(server.replace("127.0.0.1", "localhost"))
    assert not is_reachable("http://elsewhere.example/api")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "127.0.0.1,localhost"),
        ({"NO_PROXY": "a.example"}, "a.example,127.0.0.1,localhost"),
        ({"no_proxy": "b.example", "NO_PROXY": "a.example"}, "b.example,127.0.0.1,localhost"),
        ({"no_proxy": "localhost, b.example"}, "localhost, b.example,127.0.0.1"),
        ({"no_proxy": "*"}, "*"),
    ],
)
def test_what_passes_the_proxy_is_added_to(given: dict[str, str], expected: str) -> None:
    assert past_the_proxy(given) == {"no_proxy": expected, "NO_PROXY": expected}


def test_a_run_over_a_bucket_finds_the_up_that_runs_over_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HEADSTART_MIRROR", str(tmp_path / "mirrors"))
    asked: list[Path | None] = []
    monkeypatch.setattr("headstart.launch.prefect_url", asked.append)
    monkeypatch.setattr("headstart.launch.importlib.import_module", lambda _: 1 / 0)
    for store in (Path("memory://bucket/prefix"), Path("memory://bucket/prefix/"), tmp_path):
        with pytest.raises(ZeroDivisionError):
            run_flow("transfer", Config(), store, None, False, Reporter(Console(quiet=True)))
    assert asked[0] == asked[1] == folder_here("memory://bucket/prefix")
    assert asked[0] is not None
    assert asked[0].parent == tmp_path / "mirrors"
    assert asked[2] == tmp_path


def test_a_run_that_a_temporary_server_recorded_says_how_to_see_it_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    flows = SimpleNamespace(transfer=lambda *_: "done")
    monkeypatch.setattr("headstart.launch.import_tensorflow", lambda: None)
    monkeypatch.setattr("headstart.launch._prefect_at", lambda *_: nullcontext())
    monkeypatch.setattr("headstart.launch.prefect_url", lambda _: None)
    monkeypatch.setattr("headstart.launch.importlib.import_module", lambda _: flows)
    heard = io.StringIO()
    reporter = Reporter(Console(file=heard, width=200))
    assert run_flow("transfer", Config(), tmp_path, None, True, reporter) == "done"
    last = heard.getvalue().splitlines()[-1]
    assert "prefect server start" in last
    assert "/runs" in last


def test_a_run_goes_on_plainly_where_the_server_does_not_answer(
    finished: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    heard = io.StringIO()
    reporter = Reporter(Console(file=heard, width=100))
    summary = run_flow("transfer", finished.config(), finished.store.root, None, False, reporter)
    assert set(statuses(summary).values()) == {"hit"}
    assert os.environ["PREFECT_API_URL"] == "http://127.0.0.1:9/api"  # the caller's, as it was
    told = [line for line in heard.getvalue().splitlines() if "Prefect" in line]
    assert told == [
        "not recorded: no Prefect server (no server responds at http://127.0.0.1:9/api); "
        "--record starts one"
    ]


@pytest.mark.parametrize(
    "line",
    [
        "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
        "I0000 00:00:1795507841.437771    2336 port.cc:153] oneDNN custom operations are on.",
        "To enable the following instructions: AVX2, in other operations, rebuild TensorFlow",
        "E0000 00:00:1.0 1 cuda_platform.cc:52] failed call to cuInit: INTERNAL: CUDA error",
    ],
)
def test_what_tensorflow_says_at_every_start_is_noise(line: str) -> None:
    assert NOISE.match(line)


@pytest.mark.parametrize(
    "line",
    ["E0000 00:00:1.0 1 bfc_allocator.cc:1] ran out of memory", "ImportError: no", "Traceback"],
)
def test_what_may_need_action_is_not(line: str) -> None:
    assert not NOISE.match(line)


def test_stderr_during_the_import_is_kept_but_for_noise() -> None:
    code = (
        "import os\n"
        "from headstart.tasks.running.tensorflow import quiet_tensorflow\n"
        "with quiet_tensorflow():\n"
        "    os.write(2, b'I0000 00:00:1.0 1 a.cc:1] hello\\nsomething is wrong\\n')\n"
        "os.write(2, b'afterwards\\n')\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stderr.splitlines() == ["something is wrong", "afterwards"]


def test_whoever_imports_tensorflow_first_does_so_quietly() -> None:
    # With a device, as every command comes to ask for one, and in a worker's call.
    code = (
        "import pickle, sys\n"
        "from headstart.tasks.running.spreading import call\n"
        "assert 'tensorflow' not in sys.modules\n"
        "data = pickle.dumps((abs, -1))\n"
        "assert call(data) == 1\n"
        "import tensorflow as tf\n"
        "print(tf.config.list_physical_devices()[0].device_type, float(tf.constant(1.0) + 1))\n"
        "assert sum(type(one).__name__ == '_QuietFinder' for one in sys.meta_path) == 0\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, "CPU 2.0\n"), ended.stderr
    assert ended.stderr == ""


def test_every_command_begins_with_quiet_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[bool] = []
    monkeypatch.setattr("headstart.cli.quieten_imports", lambda: begun.append(True))
    monkeypatch.setattr(sys, "argv", ["headstart", "--version"])
    with pytest.raises(SystemExit):
        main()
    assert begun == [True]


def test_a_package_that_is_made_absent_can_be_imported_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    with absent("colorsys", "os"):
        with pytest.raises(ImportError):
            import colorsys
        import os as imported_already

        assert imported_already.path
    import colorsys

    assert colorsys.rgb_to_hsv(0, 0, 0)


def test_a_command_is_timed_from_its_own_start_and_not_from_its_shells() -> None:
    code = (
        "import time; began = time.monotonic(); from headstart.launch import process_seconds\n"
        "first = process_seconds(); time.sleep(0.05); second = process_seconds()\n"
        "assert 0 < first < second <= time.monotonic() - began"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
