"""What reaches a terminal: names as they are, whatever they hold, in whatever it can show."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from headstart.config import EvaluationConfig
from headstart.errors import ConfigError
from headstart.launch import provide_temporary_folder, refuse_overwriting
from headstart.printing import print_judgement
from headstart.tasks.evaluation.metrics import evaluate
from headstart.tasks.export.answers import Prediction
from headstart.tasks.export.judging import Judgement
from headstart.tasks.export.prediction_output import _json_writer, _text_writer
from headstart.tasks.progress import Reporter, plain_console, without_controls

NAMES = (
    "lion [male]",
    "[/i]",
    "[bold]x",
    ":smile:",
    "a\nb",
    "\x1b[31mred",
    "n" * 255,
    "日本語" * 40,
)


def printed(console_of: type[io.StringIO] = io.StringIO) -> tuple[io.StringIO, Console]:
    file = console_of()
    return file, plain_console(file=file, width=80)


def test_a_table_of_classes_names_them_and_keeps_its_figures() -> None:
    labels = np.arange(len(NAMES), dtype=np.int32)
    metrics = evaluate(np.eye(len(NAMES), dtype=np.float32), labels, NAMES, EvaluationConfig())
    file, console = printed()
    print_judgement(console, Judgement("new", metrics, {"new": metrics}))
    lines = file.getvalue().splitlines()
    for name in ("lion [male]", "[/i]", "[bold]x", ":smile:", r"a\nb", r"\x1b[31mred", "nnnn"):
        (line,) = [line for line in lines if line.startswith(name)]
        assert line.count("100.0 %") == 3
    assert "\x1b" not in file.getvalue()


@pytest.mark.parametrize("name", NAMES)
def test_a_note_and_a_stage_line_say_a_name_as_it_is(name: str) -> None:
    file, console = printed()
    reporter = Reporter(console)
    reporter.note(name)
    reporter.stage("dataset", "miss", name)
    expected = without_controls(name)
    assert file.getvalue() == f"{expected}\nMISS dataset      {expected}\n"


def test_a_line_of_predictions_is_one_line() -> None:
    file = io.StringIO()
    _text_writer(file)("x.png", Prediction("x.png", (("a\nb", 0.5), ("\x1b[2J", 0.5))), "")
    assert file.getvalue() == "x.png: a\\nb 50.0%, \\x1b[2J 50.0%\n"


def test_json_lines_stay_json_where_the_output_is_ascii() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", errors="backslashreplace")
    _json_writer(stream)("é.png", Prediction("é.png", (("naïve 😀", 1.0),)), "")
    assert json.loads(raw.getvalue())["label"] == "naïve 😀"


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
        {"LC_ALL": "POSIX", "LANG": ""},
    ],
)
def test_errors_and_tables_are_printed_on_any_terminal(
    environment: dict[str, str], tmp_path: Path
) -> None:
    code = (
        "import sys\n"
        "from headstart.cli import main\n"
        "sys.argv = ['headstart', 'train', 'na\\xefve [x]', '--store', sys.argv[1]]\n"
        "main()\n"
    )
    made = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "store")],
        env={**os.environ, **environment},
        capture_output=True,
        check=False,
    )
    assert made.returncode == 3
    assert b"UnicodeEncodeError" not in made.stderr
    forms = (b"na\\xefve", "naïve".encode("latin-1"), "naïve".encode())
    assert any(form in made.stderr for form in forms)
    assert b"[x]" in made.stderr


def test_a_finished_run_is_not_replaced_unasked(tmp_path: Path) -> None:
    refuse_overwriting(None)
    refuse_overwriting(tmp_path)
    (tmp_path / "config.yaml").write_text("begun, not finished")
    refuse_overwriting(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ConfigError, match="--overwrite"):
        refuse_overwriting(tmp_path)


def run(arguments: list[str], **environment: str) -> "subprocess.CompletedProcess[str]":
    kept = {name: os.environ[name] for name in ("PATH",) if name in os.environ}
    command = [sys.executable, "-m", "headstart.cli", *arguments]
    return subprocess.run(
        command, env={**kept, **environment}, capture_output=True, text=True, check=False
    )


def test_an_empty_argument_is_not_the_current_folder() -> None:
    made = run(["train", ""])
    assert made.returncode == 2
    assert "an argument is empty" in made.stderr
    assert "write . for the current folder" in made.stderr


def test_an_empty_argument_of_a_script_is_the_scripts_own(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import sys\nprint(sys.argv[1:])\n")
    made = run(["debug", "run", str(tmp_path / "mine.py"), "--name", ""])
    assert "['--name', '']" in made.stdout, made.stderr


def test_temporary_files_go_into_the_store_where_there_is_no_other_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr("tempfile.gettempdir", nowhere)
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("TMPDIR", "/nonexistent")
    provide_temporary_folder(tmp_path / "store")
    assert os.environ["TMPDIR"] == str(tmp_path / "store" / "tmp")
    with pytest.raises(Exception, match="set TMPDIR"):
        provide_temporary_folder(None)
