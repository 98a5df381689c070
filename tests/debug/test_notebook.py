"""The cell magic runs a cell as a script beside the notebook."""

import json
import sys
from pathlib import Path

import pytest

from headstart import debug
from headstart.debug.diagnosis import Diagnosis
from headstart.debug.running import ladder
from headstart.debug.running.script import notebook_in_words, run_program, without_magic


class Shell:
    def __init__(self):
        self.magics = {}

    def register_magic_function(self, function, kind, name):
        self.magics[kind, name] = function


def test_a_cell_is_run_and_what_it_prints_and_shows_is_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    ran = []

    def run_script(script, *, announce, output):
        ran.append((Path(script).parent, Path(script).read_text()))
        output.write("epoch 1\n")
        found = (Diagnosis("nan", "Log made NaN.", suggestions=("clip it",)),)
        return ladder.ScriptRun(found, "diagnosed", watched="Watched: 1 fit.")

    monkeypatch.setattr(ladder, "run_script", run_script)
    shell = Shell()
    debug.load_ipython_extension(shell)  # as `%load_ext headstart.debug` does
    shell.magics["cell", "headstart"]("--all", "model.fit(x)")
    assert ran == [(tmp_path, "model.fit(x)")]
    shown = capsys.readouterr().out
    assert shown.startswith("epoch 1\n")
    assert "error: nan" in shown
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("%matplotlib inline\nx = 1\n", "pass  # %matplotlib inline\nx = 1\n"),
        ("!pip install keras\n", "pass  # !pip install keras\n"),
        ("if gpu:\n    !nvidia-smi\n", "if gpu:\n    pass  # !nvidia-smi\n"),
        ("files = !ls\nprint(files)\n", "files = []  # files = !ls\nprint(files)\n"),
        ("model.fit?\n", "pass  # model.fit?\n"),
        ("print('acc %.2f'\n      % acc)\n", "print('acc %.2f'\n      % acc)\n"),
        ("text = '''\n%run this\n!and that\n'''\n", "text = '''\n%run this\n!and that\n'''\n"),
        ("%%bash\nls | wc\n", "pass  # %%bash\npass  # ls | wc\n"),
        ("\n%%time\nx = 1\n", "\npass  # %%time\nx = 1\n"),
        ("x = (\n", "x = (\n"),  # the program's own mistake is told
    ],
)
def test_only_what_python_cannot_read_is_left_out_of_a_cell(cell, expected):
    lines = cell.splitlines(keepends=True)
    assert "".join(without_magic(lines)) == expected


def test_a_notebook_that_runs_in_jupyter_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(sys, "path", [*sys.path])
    cells = ["%matplotlib inline\n", "%%writefile other.py\nimport nothing\n",
             "display('shown')\nif get_ipython():\n    raise SystemExit\n",
             "print('%d rows'\n      % 3)\n"]  # fmt: skip
    path = tmp_path / "notebook.ipynb"
    path.write_text(json.dumps({"cells": [{"cell_type": "code", "source": c} for c in cells]}))
    told = notebook_in_words(path)
    assert "3 IPython-only lines" in told
    main = sys.modules["__main__"]
    try:
        run_program(str(path))
    finally:
        sys.modules["__main__"] = main
    assert capsys.readouterr().out == "shown\n3 rows\n"
