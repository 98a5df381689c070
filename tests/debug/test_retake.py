"""Where a fit turns NaN its last steps are taken again, and the program itself is not."""

import sys
from pathlib import Path

import pytest

from headstart.debug.running.ladder import Ladder

sys.path.insert(0, str(Path(__file__).parent))
from fault_programs import Zygotes

HEAD = """
import pathlib
import keras
import numpy as np
import tensorflow as tf

with pathlib.Path(__file__).with_suffix(".log").open("a") as log:
    log.write("begun\\n")
keras.utils.set_random_seed(0)
x = np.random.default_rng(0).normal(size=(96, 3)).astype("float32")
y = x.sum(1, keepdims=True)
"""
PROGRAMS = {
    "late": HEAD
    + """
class Fading(keras.layers.Layer):
    def build(self, shape):
        self.steps = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, inputs):
        self.steps.assign_add(1.0)
        return inputs * tf.sqrt(21.0 - self.steps)  # WRONG

model = keras.Sequential([Fading(), keras.layers.Dense(1)])
model.compile("sgd", "mse")
try:
    model.fit(x * 1e-3, y, epochs=40, batch_size=16, verbose=0)
finally:
    with pathlib.Path(__file__).with_suffix(".log").open("a") as log:
        log.write("left\\n")
""",
    "bad_array": HEAD
    + """
x[37, 2] = np.nan  # WRONG
model = keras.Sequential([keras.layers.Dense(1)])
model.compile("sgd", "mse")
model.fit(x, y, batch_size=16, shuffle=False, verbose=0)
""",
    "traced_before": HEAD
    + """
@tf.function
def loss_of(y_true, y_pred):
    return tf.reduce_mean(tf.math.log(y_pred - y_pred))  # WRONG

loss_of(tf.ones((4, 1)), tf.ones((4, 1)))
model = keras.Sequential([keras.layers.Dense(1)])
model.compile("sgd", loss_of)
model.fit(x, y, batch_size=16, verbose=0)
""",
    "own_loop": HEAD
    + """
model = keras.Sequential([keras.layers.Dense(1), keras.layers.Lambda(lambda z: z)])
model.compile("sgd", lambda y_true, y_pred: tf.reduce_mean(tf.math.log(y_pred - y_pred)))  # WRONG
for step in range(4):
    model.train_on_batch(x[:16], y[:16])
""",
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder, zygotes, ran = tmp_path_factory.mktemp("retaken"), Zygotes(), {}
    try:
        for name, text in PROGRAMS.items():
            program, said = folder / f"{name}.py", []
            program.write_text(text)
            (folder / name).mkdir()
            ladder = Ladder(str(program), (), folder / name, zygotes.launch, announce=said.append)
            ran[name] = (ladder.climb(), program, said)
    finally:
        zygotes.close()
    return ran


def wrong_line(program):
    lines = program.read_text().splitlines()
    return next(number for number, line in enumerate(lines, start=1) if line.endswith("# WRONG"))


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_line_that_made_nan_is_named(runs, name):
    run, program, _ = runs[name]
    first = run.diagnoses[0]
    assert (first.file, first.line) == (str(program), wrong_line(program)), first


def test_a_program_whose_steps_can_be_taken_again_runs_once(runs):
    run, program, said = runs["late"]
    assert run.stages == ("watch", "retake")
    assert program.with_suffix(".log").read_text() == "begun\nleft\n"
    assert said == []
    assert run.diagnoses[0].step == 21
    assert run.diagnoses[0].layer.endswith("fading")


def test_a_bad_array_is_told_without_any_instrumentation(runs):
    run, program, _ = runs["bad_array"]
    assert run.stages == ("watch",)
    assert program.with_suffix(".log").read_text() == "begun\n"
    whole, *rest = run.diagnoses
    assert "1 of 96 rows (first: row 37)" in whole.cause
    of_batch = next(one for one in rest if "1 of 48 values" in one.cause)
    assert "of the batch's inputs, first in row 5" in of_batch.cause
    assert of_batch.batch == 2


@pytest.mark.parametrize("name", ["traced_before", "own_loop"])
def test_a_second_run_is_announced(runs, name):
    run, program, said = runs[name]
    assert run.stages[-1] == "dump"
    assert program.with_suffix(".log").read_text() == "begun\nbegun\n"
    assert len(said) == 1
    assert "a second time" in said[0]
