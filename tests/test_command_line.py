"""The first minute: help, completion, and errors that a mistyped command leads to."""

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from headstart import cli
from headstart.errors import OutputError
from headstart.standard_output import telling_failures

SIZE = 2**20
"""More than a stream's buffer holds."""


def help_of(*arguments: str) -> str:
    result = CliRunner().invoke(cli.app, list(arguments), env={"COLUMNS": "100"})
    return re.sub(r"\x1b\[[0-9;]*m", "", result.output)


def fail(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["headstart", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


@pytest.mark.parametrize("command", ["train", "plan", "why", "finetune", "rank", "audit"])
def test_a_command_without_arguments_shows_its_help(command: str) -> None:
    assert f"Usage: headstart {command}" in help_of(command).replace("root", "headstart")


def test_h_is_help_and_flags_name_no_type() -> None:
    shown = help_of("train", "-h")
    (line,) = [line for line in shown.splitlines() if "--json" in line]
    assert "bool" not in line
    assert "--install-completion" in help_of("-h")
    assert "docs/glossary.md" in help_of("-h")


def test_the_help_of_evaluate_says_how_images_are_read() -> None:
    told = " ".join(help_of("evaluate", "--help").split())
    assert "by the columns that the model was trained on; --set dataset.FIELD=VALUE changes" in told


@pytest.mark.parametrize("command", ["plan", "why"])
def test_what_only_looks_takes_the_line_of_a_train(command: str) -> None:
    commands = get_command(cli.app).commands
    takes = {option for one in commands[command].params for option in one.opts}
    assert {option for one in commands["train"].params for option in one.opts} <= takes


def test_json_is_an_object_on_errors_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fail(monkeypatch, "train", "--epochs", "3", "--json") == 2
    printed = capsys.readouterr()
    error = json.loads(printed.out)["error"]
    assert error["type"] == "ConfigError"
    assert "name the images" in error["got"]
    assert printed.err.startswith("ConfigError: the configuration has invalid fields")


def test_an_error_is_one_line_of_json_where_objects_are_printed_by_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert fail(monkeypatch, "predict", str(tmp_path / "no-run"), str(tmp_path), "--json") == 7
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["error"]["type"] == "ExportError"


PRINTING = {
    "print": ("config",), "rich": ("backbones",), "help": ("train", "--help"),
    "version": ("--version",), "click": ("debug", "check", "--json", "nowhere.py"),
}  # fmt: skip


@pytest.mark.parametrize("arguments", PRINTING.values(), ids=PRINTING)
def test_a_full_disk_behind_stdout_is_an_error_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
) -> None:
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert fail(monkeypatch, *arguments) == 1
        assert sys.stdout is full
    assert capsys.readouterr().err.splitlines()[-3:-1] == [
        "OutputError: standard output cannot be written",
        "  got: stdout: no space left on device",
    ]


@pytest.mark.parametrize(
    "write",
    [
        lambda stdout: stdout.writelines(["a" * SIZE]),
        lambda stdout: stdout.buffer.write(b"a" * SIZE),
        lambda stdout: stdout.buffer.writelines([b"a" * SIZE]),
        lambda stdout: stdout.write("a") and stdout.close(),
    ],
    ids=["writelines", "buffer.write", "buffer.writelines", "close"],
)
def test_a_full_disk_is_told_whichever_way_is_written(
    monkeypatch: pytest.MonkeyPatch, write: Callable[[Any], object]
) -> None:
    monkeypatch.setattr(sys, "stdout", Path("/dev/full").open("w", encoding="utf-8"))  # noqa: SIM115
    with pytest.raises(OutputError, match="cannot be written"), telling_failures():
        write(sys.stdout)
    with contextlib.suppress(OSError):
        sys.stdout.close()


def test_what_stands_for_stdout_is_a_stream_in_other_ways_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = (tmp_path / "out.txt").open("w+", encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", file)
    with telling_failures():
        with sys.stdout as stdout:
            stdout.write("one\ntwo\n")
            stdout.seek(0)
            assert list(stdout) == ["one\n", "two\n"]
        assert file.closed


def test_a_closed_stderr_takes_any_text_and_no_files_place(tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "from headstart.standard_output import telling_failures\n"
        "with telling_failures(), open(sys.argv[1], 'w') as file:\n"
        "    print('lost \\udcff', file=sys.stderr, flush=True)\n"
        "    os.write(2, b'lost too')\n"
        "    print(file.fileno())\n"
    )
    shell = ["sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, "-c", code]
    done = subprocess.run(
        [*shell, str(tmp_path / "file")], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) > 2
    assert (tmp_path / "file").read_bytes() == b""


def test_an_error_behind_a_full_stdout_keeps_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert fail(monkeypatch, "train", "--epochs", "3", "--json") == 2
    assert capsys.readouterr().err.startswith("ConfigError: ")


def test_a_closed_stdout_is_refused_before_anything_is_done() -> None:
    shell = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable]
    done = subprocess.run(
        [*shell, "-m", "headstart.cli", "config"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    told = "OutputError: standard output is closed\n  got: stdout: closed, as by >&-\n"
    assert done.stderr.startswith(told)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--set", "head.knd=mlp"), "head.knd: there is no such field; did you mean kind?"),
        (("--set", "hed.kind=mlp"), "hed: there is no such field; did you mean head?"),
        (("--set", "export.formats=keras,litert"), "in brackets: '[keras,litert]'"),
        (("--runner", "spark"), "spread.runner: is not of the right form (received spark): inline"),
    ],
)
def test_a_wrong_field_is_told_with_the_right_one(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    words: str,
) -> None:
    assert fail(monkeypatch, "train", "images", *arguments) == 2
    assert words in capsys.readouterr().err


def test_an_interrupt_within_a_callback_from_c_is_an_interrupt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop(**_: object) -> None:
        raise SystemError("returned a result with an exception set") from KeyboardInterrupt()

    monkeypatch.setattr(cli, "app", stop)
    assert fail(monkeypatch, "train") == 130


def test_prefect_tells_nobody_of_a_run_without_a_server() -> None:
    code = "import os, headstart.flows; print(os.environ['DO_NOT_TRACK'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
