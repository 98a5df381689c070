"""The cell magic runs a cell as a script beside the notebook."""

from pathlib import Path

from headstart import debug
from headstart.debug.diagnosis import Diagnosis
from headstart.debug.running import ladder


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
