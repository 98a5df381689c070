"""The command line as a user meets it."""

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from headstart.cli import CODE_OF_SIGPIPE, app, main
from headstart.config import build_config
from headstart.config.loading import CONFIG_OF
from headstart.service.record import descendants
from tests.pipeline import NUM_IMAGES, QUICK, Pipeline, add_images

COMMANDS = [
    ["train"], ["demo"], ["plan"], ["why"], ["config"], ["backbones"], ["cuts"], ["predict"],
    ["evaluate"], ["cache"], ["cache", "ls"], ["cache", "du"], ["cache", "verify"],
    ["cache", "gc"], ["debug"],
]  # fmt: skip


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def options(pipeline: Pipeline, *settings: str) -> list[str]:
    chosen = [*QUICK, f"backbone.name={pipeline.backbone}", *settings]
    return [part for setting in chosen for part in ("--set", setting)] + [
        "--store",
        str(pipeline.store.root),
    ]


def fail(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object
) -> tuple[int, str]:
    """Run the command line to its end; return its exit code and standard error."""
    monkeypatch.setattr(sys, "argv", ["headstart", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    assert isinstance(ended.value.code, int)
    return ended.value.code, captured.err


@pytest.mark.parametrize("command", [["config"], ["backbones"]])
def test_a_closed_pipe_ends_a_command_as_a_shell_expects(command: list[str]) -> None:
    # One prints, the other writes through rich.
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        [sys.executable, "-m", "headstart.cli", *command],
        stdout=writing, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (CODE_OF_SIGPIPE, "")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "sys.argv = ['headstart', '--help']\n"
        "from headstart.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit:\n    pass\n"
        "print([n for n in ('tensorflow', 'keras', 'prefect', 'numpy') if n in sys.modules])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "Train, evaluate and export" in result.stdout
    assert result.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(command: list[str]) -> None:
    result = call(*command, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_train_puts_one_json_object_on_stdout_and_all_else_on_stderr(pipeline: Pipeline) -> None:
    command = [sys.executable, "-m", "headstart.cli", "train", str(pipeline.images), "--json"]
    result = subprocess.run(
        [*command, *options(pipeline)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    summary = json.loads(result.stdout)
    assert Path(summary["model"]).parent == Path(summary["run_dir"])
    assert summary["metrics"]["val"]["accuracy"] == 1.0
    assert summary["seconds"] > 0
    for stage in summary["stages"]:
        assert {"name", "status", "seconds", "rows", "rows_computed"} <= set(stage)
    lines = result.stderr.splitlines()
    assert lines[0].startswith("not recorded: no Prefect server")
    assert any(line.startswith("MISS bottlenecks") for line in lines)
    assert any(line.strip().startswith("tensorboard --logdir") for line in lines)
    assert not any(line.startswith(("I0000", "E0000", "WARNING")) for line in lines)


def test_train_prints_hits_and_where_the_results_are(finished: Pipeline, tmp_path: Path) -> None:
    result = call("train", finished.images, "--out", tmp_path / "out", *options(finished))
    assert result.exit_code == 0, result.output
    assert result.output.count("HIT ") == 6
    assert str(tmp_path / "out" / "report.html") in result.output
    assert (tmp_path / "out" / "model.keras").exists()


def test_dedicated_options_set_their_fields(finished: Pipeline) -> None:
    result = call(
        "why", finished.images, *options(finished),
        "--cut", "second", "--views", 2, "--epochs", 3, "--json",
    )  # fmt: skip
    stages = {stage["name"]: stage for stage in json.loads(result.stdout)["stages"]}
    assert stages["views"]["text"] == f"{2 * NUM_IMAGES} of {3 * NUM_IMAGES} rows are missing"
    changed = {name for name, _, _ in stages["head"]["changes"]}
    assert "head.epochs" in changed
    assert any(name.endswith("num_augmented") for name in changed)
    assert ["head.epochs", 8, 3] in stages["head"]["changes"]


def test_why_answers_hit_for_all_that_is_there(finished: Pipeline) -> None:
    result = call("why", finished.images, *options(finished))
    assert result.exit_code == 0, result.output
    assert [line.split()[0] for line in result.output.splitlines()] == ["HIT"] * 6


def test_why_names_the_field_that_changed(finished: Pipeline) -> None:
    result = call("why", finished.images, *options(finished, "head.seed=5"))
    assert "head.seed: 0 -> 5" in result.output
    assert finished.num_passed() == 0


def test_plan_says_what_would_be_computed_without_computing_it(finished: Pipeline) -> None:
    add_images(finished.images, "red", range(900, 905))
    result = call("plan", finished.images, *options(finished), "--json")
    assert result.exit_code == 0, result.output
    plan = json.loads(result.stdout)
    stages = {stage["name"]: stage for stage in plan["stages"]}
    assert stages["views"]["rows_missing"] == stages["bottlenecks"]["rows_missing"] == 5
    assert stages["bottlenecks"]["rows"] == NUM_IMAGES + 5
    assert plan["bytes_needed"] >= 5 * (16 * 16 * 3 + 16 * 2)
    assert plan["fits"]
    assert plan["break_even_epoch"] >= 1
    written = [c for c in finished.collections() if c.missing(c.shards()[0].row_ids)]
    assert written == []
    assert sum(len(shard.row_ids) for shard in finished.collections()[0].shards()) == NUM_IMAGES


def test_plan_refuses_when_the_disk_is_short(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1000, 999, 1))
    result = call("plan", pipeline.images, *options(pipeline))
    assert result.exit_code == 4
    assert "DOES NOT FIT" in result.output


@pytest.mark.parametrize("command", CONFIG_OF)
def test_the_printed_configuration_is_accepted_and_has_every_field(
    command: str, tmp_path: Path
) -> None:
    result = call("config", command)
    assert result.exit_code == 0
    (tmp_path / "config.yaml").write_text(result.output)
    model = CONFIG_OF[command]
    config = build_config(model, "x", tmp_path / "config.yaml")
    assert config == build_config(model, "x")
    assert set(yaml.safe_load(result.output)) == set(config.model_dump())
    assert max(map(len, result.output.splitlines())) <= 100


def test_a_configuration_says_what_a_field_means() -> None:
    lines = call("config", "scratch").output.splitlines()
    (above,) = [i for i, line in enumerate(lines) if line.strip().startswith("budget_s:")]
    assert "Seconds" in " ".join(lines[above - 4 : above])
    assert call("config", "scrach").exit_code != 0


def test_backbones_and_cuts_are_listed(pipeline: Pipeline) -> None:
    names = call("backbones").output
    assert "efficientnet_lite0" in names
    assert "resnet50" in names
    cuts = json.loads(call("cuts", pipeline.backbone, "--json").stdout)["cuts"]
    assert [cut["name"] for cut in cuts][-1] == "top"
    assert "second" in {cut["name"] for cut in cuts}
    shown = call("cuts", pipeline.backbone).output
    assert "second" in shown
    assert "recommended: top" in shown
    natural = [cut["name"] for cut in cuts if cut["is_natural"]]
    assert natural[-1] == "top"
    tail = f"--cut {natural[-2]} --set head.kind=tail --set head.learning_rate=1e-3"
    assert tail in shown  # what the setting itself advises


def test_predict_reports_a_bad_file_and_goes_on(finished: Pipeline, tmp_path: Path) -> None:
    run_dir = finished.run().run_dir
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"not an image")
    good = finished.images / "red" / "0200.png"
    result = call("predict", run_dir, bad, good, "--json", "--top", 2)
    assert result.exit_code == 0
    first, second = (json.loads(line) for line in result.stdout.splitlines())
    assert first["path"] == str(bad)
    assert "error" in first
    assert second["label"] == "red"
    assert second["top"][0]["label"] == "red"
    assert len(second["top"]) == 2
    rows = list(csv.DictReader(io.StringIO(call("predict", run_dir, good, "--csv").stdout)))
    assert [row["label"] for row in rows] == ["red"]


def test_evaluate_judges_a_model_on_labelled_images(finished: Pipeline) -> None:
    run_dir = finished.run().run_dir
    metrics = json.loads(call("evaluate", run_dir, finished.images, "--json").stdout)
    judged = {name: group["num_images"] for name, group in metrics["groups"].items()}
    assert sum(judged.values()) == NUM_IMAGES
    assert metrics["num_images"] == judged["test"]
    assert metrics["accuracy"] > 0.9
    assert "accuracy" in call("evaluate", run_dir, finished.images).output
    shutil.rmtree(finished.images / "blue")
    shutil.rmtree(finished.images / "green")
    metrics = json.loads(call("evaluate", run_dir, finished.images, "--json").stdout)
    assert sum(one["num_images"] for one in metrics["groups"].values()) == NUM_IMAGES // 3


def test_evaluate_refuses_classes_that_the_model_does_not_know(
    finished: Pipeline, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = finished.run().run_dir
    (finished.images / "red").rename(finished.images / "purple")
    code, error = fail(capsys, monkeypatch, "evaluate", run_dir, finished.images)
    assert code == 3
    assert "purple" in error


def test_the_cache_commands_look_after_the_store(finished: Pipeline) -> None:
    store = ("--store", finished.store.root)
    holdings = json.loads(call("cache", "ls", *store, "--json").stdout)["holdings"]
    assert {"views", "bottlenecks", "head", "export"} <= {one["kind"] for one in holdings}
    shown = call("cache", "ls", *store).output
    assert max(map(len, shown.splitlines())) <= 80
    (run,) = (finished.store.root / "runs").iterdir()
    assert {tuple(one["runs"]) for one in holdings} == {(run.name,)}
    assert "linear" in {one["what"] for one in holdings if one["kind"] == "head"}
    assert "bottlenecks" in call("cache", "du", *store).output
    assert "0 damaged" in call("cache", "verify", *store).output
    assert "would be removed" in call("cache", "gc", "--views", "--dry-run", *store).output
    (shard, *_) = (finished.store.root / "rows" / "bottlenecks").rglob("*.tfrecord")
    shard.write_bytes(b"?")
    damaged = call("cache", "verify", *store)
    assert damaged.exit_code == 4
    assert "1 damaged" in damaged.output


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["train", "no/such/folder"], 3, ["no/such/folder", "next"]),
        (["train", "{images}", "--set", "head.kind=x", "--set", "head.nope=1"], 2,
         ["head.kind", "head.nope"]),
        (["train", "{images}", "--set", "nonsense"], 2, ["section.field=value"]),
        (["train", "{images}", "--config", "no.yaml"], 2, ["no.yaml"]),
        (["train", "{images}", "--backbone", "resnet5"], 5, ["resnet50"]),
        (["train", "{images}", "--cut", "blok1a"], 5, ["headstart cuts"]),
        (["train", "{images}", "--out", "{images}"], 2, ["--out"]),
        (["predict", "{images}", "{images}"], 7, ["next"]),
        (["predict", "{images}", "{images}", "--json", "--csv"], 2, ["one of them"]),
        (["cache", "ls", "--store", "{images}"], 4, ["--store"]),
    ],
)  # fmt: skip
def test_a_wrong_call_ends_in_a_clear_message(
    pipeline: Pipeline,
    arguments: list[str],
    code: int,
    words: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    filled = [argument.format(images=pipeline.images) for argument in arguments]
    ended, error = fail(capsys, monkeypatch, *filled)
    assert ended == code, error
    for word in words:
        assert word in error


def test_version_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import headstart

    monkeypatch.setattr(sys, "argv", ["headstart", "--version"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"headstart {headstart.__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [["predict", "run", ""], ["train", "images", "--store", " "], ["evaluate", "--store=", "a"]],
)
def test_what_an_unset_variable_leaves_is_not_the_current_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["headstart", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "an argument is empty" in capsys.readouterr().err


def test_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    command = f"{sys.executable} -m headstart.cli config | head -1"
    result = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        capture_output=True,
        text=True,
        check=False,
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
    )
    assert "Traceback" not in result.stderr
    assert "Exception" not in result.stderr


def test_sigterm_ends_a_command_with_143_and_its_locks(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys, time\n"
        "from headstart.cli import app, main\n"
        "@app.command()\n"
        "def wait():\n"
        "    from headstart.tasks.store.artifacts import Store\n"
        f"    with Store(pathlib.Path({str(tmp_path / 'store')!r})).staging():\n"
        "        print('waiting', flush=True)\n"
        "        time.sleep(120)\n"
        "sys.argv = ['headstart', 'wait']\n"
        "main()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    process.terminate()
    assert process.wait(60) == 143
    process.stdout.close()
    assert list((tmp_path / "store" / "tmp").iterdir()) == []


@pytest.mark.parametrize(("sign", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_what_a_command_has_started_ends_with_it(sign: signal.Signals, code: int) -> None:
    script = (
        # A shell lets what it runs in the background ignore SIGINT.
        "import signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from headstart.cli import app, main\n"
        "from headstart.tasks.surveying import child\n"
        "@app.command()\n"
        "def wait():\n"
        "    child.__name__ = 'http.server'  # a child that would stay\n"
        "    for line in child.run_child('0', '--bind', '127.0.0.1'):\n"
        "        print('waiting', flush=True)\n"
        "sys.argv = ['headstart', 'wait']\n"
        "main()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    started = descendants([process.pid])
    assert len(started) == 1
    process.send_signal(sign)
    assert process.wait(60) == code
    process.stdout.close()
    assert [one for one in started if one.is_alive()] == []


def test_the_configuration_of_a_run_is_enough_to_repeat_it(finished: Pipeline) -> None:
    run_config = Path(finished.run().run_dir) / "config.yaml"
    result = call("why", "--config", run_config, "--store", finished.store.root)
    assert [line.split()[0] for line in result.output.splitlines()] == ["HIT"] * 6
    assert call("train").exit_code != 0
