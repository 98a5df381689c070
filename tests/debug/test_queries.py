"""A dump answers questions: which values, which node, which tensor."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from headstart.debug.cli import app
from headstart.debug.dump.dump import read_dump
from headstart.debug.dump.queries import matching, node_text, values_of
from headstart.debug.running.ladder import Ladder
from headstart.debug.running.process import subprocess_launcher
from headstart.errors import ConfigError

SCRIPT = """
import tensorflow as tf
@tf.function
def logarithm(x):
    return tf.math.log(x * 2.0)
logarithm(tf.constant([1.0, 2.0]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("dump")
    script = place / "program.py"
    script.write_text(SCRIPT)
    Ladder(str(script), (), place, subprocess_launcher(None), "FULL_TENSOR").run_stage("dump")
    return place / "dump"


def test_a_condition_picks_values(folder):
    dump = read_dump(folder)
    (row,) = matching(dump, "op_type == 'Log' and max > 1 and num_nan == 0")
    assert (row.fields["line"], row.fields["size"]) == (5, 2)
    assert row.tensor in row.in_words()
    assert matching(dump, "is_bad") == []


@pytest.mark.parametrize("where", ["max >", "().__class__", "weight > 1"])
def test_a_condition_of_something_else_is_refused(folder, where):
    with pytest.raises(ConfigError):
        matching(read_dump(folder), where)


def test_a_node_shows_its_inputs_and_a_tensor_its_values(folder):
    dump = read_dump(folder)
    text = node_text(dump, "Log")
    assert "(Log)" in text
    assert "program.py:5" in text
    assert "input  mul:0" in text
    np.testing.assert_allclose(values_of(folder, "Log:0"), [np.log([2.0, 4.0])], rtol=1e-6)
    with pytest.raises(ConfigError, match="did you mean Log"):
        node_text(dump, "Lo")
    with pytest.raises(ConfigError, match="FULL_TENSOR"):
        values_of(folder, "Nowhere")


def test_the_command_answers_in_json_and_in_words(folder):
    asked = ["dump", str(folder), "--where", "op_type == 'Log'", "--node", "Log", "--tensor", "Log"]
    words = CliRunner().invoke(app, asked)
    assert words.exit_code == 0, words.output
    assert "1 values" in words.stdout
    answer = json.loads(CliRunner().invoke(app, [*asked, "--json"]).stdout)
    assert answer["where"][0]["op_type"] == "Log"
    assert len(answer["tensors"]["Log"]) == 1
    assert CliRunner().invoke(app, ["dump", str(folder), "--node", "Nowhere"]).exit_code == 2
