"""What a command imports: the seconds before it does anything."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.test_cli import options
from tests.pipeline import Pipeline

HEAVY = ("tensorflow", "keras", "prefect", "matplotlib", "sklearn", "scipy", "pandas")


def imported_by(*arguments: object) -> tuple[list[str], str]:
    """Run a command in a process of its own; return which heavy packages it imported."""
    code = (
        "import sys\n"
        "from headstart.cli import main\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stderr.splitlines()[-1].replace("'", '"')), ended.stdout


def test_a_run_that_finds_everything_imports_nothing_heavy(finished: Pipeline) -> None:
    command = ["train", finished.images, *options(finished), "--json"]
    loaded, stdout = imported_by(*command)
    summary = json.loads(stdout)
    assert [stage["status"] for stage in summary["stages"]] == ["hit"] * 6
    assert loaded == []
    assert Path(summary["report"]).read_text().count("data:image/svg+xml") >= 2


@pytest.mark.parametrize("command", [["models"], ["cache", "ls"], ["cache", "du"]])
def test_commands_that_only_look_import_nothing_heavy(
    finished: Pipeline, command: list[str]
) -> None:
    assert imported_by(*command, "--store", finished.store.root)[0] == []


@pytest.mark.parametrize("command", ["why", "plan"])
def test_looking_ahead_of_a_run_that_would_find_everything_imports_nothing_heavy(
    finished: Pipeline, command: str
) -> None:
    loaded, stdout = imported_by(command, finished.images, *options(finished), "--json")
    assert {stage["status"] for stage in json.loads(stdout)["stages"]} == {"hit"}
    assert loaded == []
