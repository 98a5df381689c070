import subprocess
import sys
import time

import pytest

from headstart.debug.dump.dump import allow_unknown_ops, read_dump
from headstart.debug.internals import private
from headstart.debug.running.ladder import Ladder, run_script
from headstart.debug.running.process import (
    Ended,
    folder_bytes,
    subprocess_launcher,
    wait_within_cap,
)
from headstart.errors import ConfigError, RecordError

CAP_BYTES = 4_000_000
WRITER = """
import sys
with open(sys.argv[1], "wb") as file:
    for _ in range(int(sys.argv[2])):
        file.write(bytes(10_000))
        file.flush()
"""


def write_in_child(folder, chunks):
    folder.mkdir()
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(folder / "dump"), str(chunks)])
    ended = wait_within_cap(process.pid, process.poll, folder, CAP_BYTES)
    process.wait()
    return ended


def test_a_process_is_ended_before_its_folder_reaches_the_cap(tmp_path):
    ended = write_in_child(tmp_path / "dump", chunks=100_000)
    assert folder_bytes(tmp_path / "dump") <= CAP_BYTES
    assert f"its cap of {CAP_BYTES:,}" in ended.dropped
    size = folder_bytes(tmp_path / "dump")
    time.sleep(0.1)
    assert folder_bytes(tmp_path / "dump") == size


def test_a_process_within_its_cap_ends_by_itself(tmp_path):
    ended = write_in_child(tmp_path / "dump", chunks=10)
    assert (ended.exit_code, ended.dropped) == (0, "")
    assert folder_bytes(tmp_path / "dump") == 100_000


LARGE_TENSORS = """
import tensorflow as tf

@tf.function
def grow(x):
    return tf.sqrt(x + 1.0)

x = tf.ones([1_000_000])
for _ in range(200):
    x = grow(x)
"""


def test_the_fullest_dump_stays_within_its_cap_and_says_what_it_dropped(tmp_path, monkeypatch):
    cap_bytes = 40_000_000
    seen = []
    monkeypatch.setattr(
        "headstart.debug.running.process.folder_bytes",
        lambda path: seen.append(folder_bytes(path)) or seen[-1],
    )
    script = tmp_path / "large.py"
    script.write_text(LARGE_TENSORS)  # 1.6 GB of tensors
    ladder = Ladder(str(script), (), tmp_path, subprocess_launcher(None), "FULL_TENSOR", cap_bytes)
    ladder.run_stage("dump")
    assert max(seen) <= cap_bytes
    assert folder_bytes(tmp_path / "dump") <= cap_bytes
    assert f"its cap of {cap_bytes:,}: what the script did after that" in ladder.dropped
    assert read_dump(tmp_path / "dump").ops  # what was written until then can be read


def test_a_tensor_whose_op_was_not_yet_written_does_not_make_a_dump_unreadable():
    class Reader:
        def _lookup_op_type(self, graph_id, op_name):
            return {"AddV2": "AddV2"}[op_name]

    reader = Reader()
    allow_unknown_ops(reader)
    assert reader._lookup_op_type("graph", "AddV2") == "AddV2"
    assert reader._lookup_op_type("graph", "Sqrt") == ""
    assert hasattr(private("DebugDataReader"), "_lookup_op_type")  # where it is asked


def test_a_folder_without_a_dump_is_refused(tmp_path):
    with pytest.raises(RecordError, match="Debugger V2 dump"):
        read_dump(tmp_path)


def test_a_dump_folder_in_use_is_refused(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("")
    with pytest.raises(ConfigError, match="new or empty folder"):
        run_script(script, keep_dump=tmp_path)


def test_a_process_that_dies_without_a_word_is_a_crash(tmp_path):
    def die(spec, cap_bytes):
        ended = subprocess.run([sys.executable, "-c", "import os; os.abort()"], check=False)
        return Ended(ended.returncode)

    result = Ladder("script.py", (), tmp_path, die).climb()
    assert [found.symptom for found in result.diagnoses] == ["crash"]
    assert "SIGABRT" in result.diagnoses[0].cause
    assert result.exit_code == 1
