"""``headstart debug run``, ``dump`` and ``session`` from the outside, in processes of their own."""

import json
import subprocess
import sys

import pytest

COMMAND = "import sys; from headstart.debug.cli import app; app(sys.argv[1:])"
FAULTY = """
import sys

import tensorflow as tf

scale = float(sys.argv[1])


@tf.function
def entropy(x):
    return tf.reduce_sum(x * tf.math.log(x * scale))


print("printed by the script")
for value in (1.0, 0.0):
    entropy(tf.constant([0.5, value]))
"""
LINE = 11

SESSION = """
import tensorflow as tf

v1 = tf.compat.v1
v1.disable_eager_execution()
x = v1.placeholder(tf.float32, [2], name="x")
y = tf.math.log(x, name="logs")
with v1.Session() as session:
    session.run(y, {x: [0.0, 1.0]})
"""


def invoke(*arguments):
    return subprocess.run(
        [sys.executable, "-c", COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def test_a_faulty_script_is_diagnosed_as_json_and_its_dump_can_be_read_again(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(FAULTY)
    dump = tmp_path / "kept"
    result = invoke("run", "--json", "--keep-dump", dump, script, "--", "1.0")
    assert result.returncode == 1, result.stderr
    payload = json.loads(result.stdout)
    assert payload["stages"] == ["watch", "dump"]
    first = payload["diagnoses"][0]
    assert (first["file"], first["line"], first["op_type"]) == (str(script), LINE, "Log")
    assert first["step"] == 1

    again = invoke("dump", dump / "dump", "--json")
    assert again.returncode == 1, again.stderr
    assert json.loads(again.stdout)["diagnoses"][0]["line"] == LINE


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("def broken(:", "SyntaxError"),
        ("import no_such_module_anywhere", "ModuleNotFoundError"),
        ("import sys; sys.exit(3)", "exit code 3"),
    ],
)
def test_a_script_that_cannot_be_run_exits_with_2(tmp_path, text, reason):
    script = tmp_path / "script.py"
    script.write_text(text)
    result = invoke("run", script)
    assert result.returncode == 2
    assert reason in result.stderr


def test_a_missing_script_exits_with_2(tmp_path):
    result = invoke("run", "--json", tmp_path / "absent.py")
    assert result.returncode == 2
    assert "absent.py" in result.stderr
    assert json.loads(result.stdout)["status"] == "unrunnable"


def test_a_folder_without_a_dump_exits_with_2(tmp_path):
    assert invoke("dump", tmp_path).returncode == 2


def test_a_script_without_tensorflow_is_healthy(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("print(1)")
    result = invoke("run", "--json", script)
    assert result.returncode == 0
    payload = json.loads(result.stdout)
    assert payload["diagnoses"] == []
    assert payload["watched"].startswith("Nothing was watched")


def test_a_session_script_lists_its_bad_tensors(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SESSION)
    result = invoke("session", "--node", "logs", script)
    assert result.returncode == 1, result.stderr
    assert "1 tensors with NaN or Inf\n  logs:0: NaN 0, Inf 1" in result.stdout
    assert f"{script}:7" in result.stdout


CLOSED = """
import tensorflow as tf

v1 = tf.compat.v1
v1.disable_eager_execution()


def main(argv):
    x = v1.placeholder(tf.float32, [2], name="x")
    y = tf.math.log(x, name="logs")
    session = v1.InteractiveSession()
    assert isinstance(session, v1.InteractiveSession)
    metadata = v1.RunMetadata()
    session.run(y, {x: [0.0, 1.0]}, options=v1.RunOptions(), run_metadata=metadata)
    session.close()


v1.app.run(main)
"""


def test_a_closed_interactive_session_of_app_run_can_still_be_asked(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(CLOSED)
    result = invoke("session", "--json", script)
    assert result.returncode == 1, result.stderr
    (report,) = json.loads(result.stdout)["sessions"]
    assert report["diagnoses"][0]["line"] == 10
