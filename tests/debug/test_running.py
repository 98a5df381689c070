"""How programs are run and watched: what is theirs, what is kept of them, and how they end."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from headstart.debug.running.script import notebook_in_words
from headstart.errors import ConfigError

sys.path.insert(0, str(Path(__file__).parent))
from fault_programs import Zygotes

# A shell lets what it runs in the background ignore SIGINT; these programs must not.
COMMAND = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from headstart.debug.cli import app
app(sys.argv[1:])
"""


def start(*arguments, cwd=None):
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, "run", *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd,
    )  # fmt: skip


def finish(process, given=""):
    try:
        out, err = process.communicate(given, timeout=200)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return process.returncode, out, err


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_what_follows_the_script_and_its_input_are_its_own(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import sys\nprint(sys.argv[1:], input())\n")
    code, out, err = finish(start(script, "--mode", "x", "--json"), "typed\n")
    assert code == 0, err
    assert "['--mode', 'x', '--json'] typed" in out
    assert "Nothing was watched" in out


def test_a_module_is_run_as_python_runs_it(tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "package" / "part.py").write_text("name = 'part'\n")
    (tmp_path / "package" / "train.py").write_text(
        "import sys\nfrom .part import name\nprint(__name__, name, sys.argv[1:])\n"
    )
    code, out, err = finish(start("-m", "package.train", "--epochs", "3", cwd=tmp_path))
    assert code == 0, err
    assert "__main__ part ['--epochs', '3']" in out
    code, _, err = finish(start("-m", "package.absent", cwd=tmp_path))
    assert code == 2
    assert "package.absent" in err


def test_the_code_cells_of_a_notebook_are_run(tmp_path):
    cells = [
        {"cell_type": "markdown", "source": ["# no code"]},
        {"cell_type": "code", "source": ["%matplotlib inline\n", "def f():\n", "    return 7\n"]},
        {"cell_type": "code", "source": ["print('value', f())\n", "raise SystemExit(0)"]},
    ]
    notebook = tmp_path / "train.ipynb"
    notebook.write_text(json.dumps({"cells": cells, "nbformat": 4}))
    code, out, err = finish(start(notebook))
    assert code == 0, err
    assert "value 7" in out
    assert "the code cells of this notebook (2) run as one script; " in err


@pytest.mark.parametrize("text", ["", "[]", '{"cells": [1]}', '{"cells": [{"cell_type": "code"}]}'])
def test_what_is_no_notebook_is_refused_in_words(tmp_path, text):
    (tmp_path / "train.ipynb").write_text(text)
    with pytest.raises(ConfigError, match="not a Jupyter notebook"):
        notebook_in_words(tmp_path / "train.ipynb")


def test_a_pool_of_threads_that_nobody_shut_down_does_not_keep_the_process(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from concurrent.futures import ThreadPoolExecutor\n"
        "pool = ThreadPoolExecutor(2)\nprint(pool.submit(len, 'abc').result())\n"
    )
    code, out, err = finish(start(script))
    assert code == 0, err
    assert "3" in out


@pytest.mark.parametrize("how", ["limit", "interrupt"])
def test_a_stopped_program_says_where_it_stood_and_leaves_no_process(tmp_path, how):
    script = tmp_path / "script.py"
    pid_file = tmp_path / "pid"
    script.write_text(
        f"import os, time\nopen({str(pid_file)!r}, 'w').write(str(os.getpid()))\ntime.sleep(1000)\n"
    )
    limit = ("--limit-s", "4") if how == "limit" else ()
    process = start("--json", *limit, script)
    if how == "interrupt":
        while not (pid_file.exists() and pid_file.read_text()):
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
    code, out, err = finish(process)
    payload = json.loads(out)
    assert (code, payload["status"]) == (2, "interrupted"), err
    assert f"{script}:3" in payload["message"]
    assert not is_alive(int(pid_file.read_text()))


KERAS = """
import os, sys
import numpy as np
import tensorflow as tf
model = tf.keras.Sequential([tf.keras.Input((2,)), tf.keras.layers.Dense(1)])
model.compile("sgd", "mse")
x = np.random.default_rng(0).normal(size=(64, 2)).astype("float32")
y = x[:, :1] * 2
"""
WRONG = "    model.fit(x, y.reshape(32, 2), verbose=0)\n"
PROGRAMS = {
    "healthy": KERAS + "model.fit(x, y, epochs=2, verbose=0)\n",
    "swallowed": KERAS + f"try:\n{WRONG}except Exception:\n    sys.exit(1)\n",
    "late_import": KERAS + "model.fit(x, y, verbose=0)\nimport no_such_module_anywhere\n",
    "hard_exit": KERAS + "y[:] = np.nan\ntry:\n    model.fit(x, y, verbose=0)\n"
    "except BaseException:\n    os._exit(3)\n",
    "interactive": """
import tensorflow as tf
v1 = tf.compat.v1
v1.disable_eager_execution()
x = v1.placeholder(tf.float32, [2], name="x")
loss = tf.reduce_sum(tf.math.log(x), name="loss")
session = v1.InteractiveSession()
for value in (1.0, -1.0):
    session.run(loss, {x: [value, 1.0]})
""",
    "own_loop": """
import tensorflow as tf
weight = tf.Variable(1.0)
optimizer = tf.keras.optimizers.SGD(0.1)
for step in range(5):
    with tf.GradientTape() as tape:
        loss = (weight - 3.0) ** 2
    optimizer.apply_gradients([(tape.gradient(loss, weight), weight)])
""",
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("programs")
    for name, text in PROGRAMS.items():
        (folder / f"{name}.py").write_text(text)
    zygotes = Zygotes()
    try:
        programs = sorted(folder.glob("*.py"))
        with zygotes.running(programs, tmp_path_factory.mktemp("runs")) as ran:
            return {path.stem: future.result() for path, future in ran.items()}
    finally:
        zygotes.close()


def test_a_healthy_run_says_what_was_watched(runs):
    healthy = runs["healthy"]
    assert healthy.exit_code == 0, healthy.diagnoses
    assert "1 fit, 4 training steps in fit" in healthy.watched
    assert "loss" in healthy.watched
    assert "5 training steps in custom loops" in runs["own_loop"].watched


def test_an_exception_that_the_script_turned_into_an_exit_code_is_diagnosed(runs):
    swallowed = runs["swallowed"]
    assert swallowed.exit_code == 1
    assert swallowed.diagnoses[0].severity == "ended"
    assert "exit code 1 after ValueError" in swallowed.message
    assert "Traceback" in Path(swallowed.trace_file).read_text()


def test_an_import_that_fails_after_the_training_is_an_exception_like_others(runs):
    late = runs["late_import"]
    assert late.exit_code == 1
    assert "no_such_module_anywhere" in late.diagnoses[0].cause
    assert "1 fit" in late.watched


def test_what_was_found_survives_a_hard_exit(runs):
    assert runs["hard_exit"].exit_code == 1
    assert "1 fit" in runs["hard_exit"].watched


def test_an_interactive_session_is_watched(runs):
    session = runs["interactive"]
    assert session.exit_code == 1
    assert session.diagnoses[0].step == 1
    assert session.diagnoses[0].step_unit == "graph execution"
    assert "2 session runs" in session.watched
