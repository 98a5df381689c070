"""What `headstart debug run` costs a healthy program, start-up left out.

    python benchmarks/debug_run_overhead.py [--seconds 30] [--rounds 3] [PROGRAM ...]

(about 25 minutes on two idle cores.) Five programs of the kinds that people have are run plainly
and under the debugger, in turns, each a process of its own. How many steps make `--seconds` is
found out by a plain run of a few. A program that does nothing but import is run both ways too, and
what it takes is taken off:

    overhead = (debugged - debugged start-up) / (plain - plain start-up) - 1

Medians over the rounds are printed, of the wall clock and of the processor's time, which other
work on the machine disturbs less; and what the debugger said: anything but no finding makes the
figure one of another question, and the script exits with 1.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

HEADSTART = str(Path(sys.executable).with_name("headstart"))
BEGIN = """
import sys
import time
import numpy as np
import keras
import tensorflow as tf

STEPS = int(sys.argv[1])
keras.utils.set_random_seed(3)
rng = np.random.default_rng(3)

def pictures(rows, side):
    # Which quarter of a noisy picture is bright.
    y = rng.integers(0, 4, rows)
    x = rng.normal(0.5, 0.2, (rows, side, side, 3)).astype("float32")
    half = side // 2
    for row, kind in enumerate(y):
        top, left = half * (kind // 2), half * (kind % 2)
        x[row, top:top + half, left:left + half] += 0.3
    return x, y
"""
PROGRAMS = {
    "start-up": "",
    "small CNN, fit": """
x, y = pictures(1024, 32)
model = keras.Sequential([
    keras.Input((32, 32, 3)),
    keras.layers.Conv2D(32, 3, activation="relu"),
    keras.layers.MaxPooling2D(),
    keras.layers.Conv2D(64, 3, activation="relu"),
    keras.layers.MaxPooling2D(),
    keras.layers.Flatten(),
    keras.layers.Dense(64, activation="relu"),
    keras.layers.Dense(4),
])
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile("adam", loss, metrics=["accuracy"])
rows = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(1024, seed=3).repeat().batch(32)
model.fit(rows, steps_per_epoch=max(1, STEPS // 5), epochs=5, verbose=2)
""",
    "MLP, many short steps, fit": """
x = rng.normal(size=(8192, 64)).astype("float32")
w = rng.normal(size=(64, 10))
y = np.argmax(x @ w, 1)
model = keras.Sequential([
    keras.Input((64,)),
    keras.layers.Dense(256, activation="relu"),
    keras.layers.Dense(256, activation="relu"),
    keras.layers.Dense(10, activation="softmax"),
])
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
rows = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(8192, seed=3).repeat().batch(128)
model.fit(rows, steps_per_epoch=max(1, STEPS // 5), epochs=5, verbose=2)
""",
    "small CNN, own loop": """
x, y = pictures(1024, 32)
model = keras.Sequential([
    keras.Input((32, 32, 3)),
    keras.layers.Conv2D(32, 3, activation="relu"),
    keras.layers.MaxPooling2D(),
    keras.layers.Conv2D(64, 3, strides=2, activation="relu"),
    keras.layers.Flatten(),
    keras.layers.Dense(4),
])
optimizer = keras.optimizers.Adam(1e-3)
loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

@tf.function
def step(images, labels):
    with tf.GradientTape() as tape:
        loss = loss_of(labels, model(images, training=True))
    grads = tape.gradient(loss, model.trainable_variables)
    optimizer.apply_gradients(zip(grads, model.trainable_variables))
    return loss

rows = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(1024, seed=3).repeat().batch(32)
for number, (images, labels) in enumerate(rows.take(STEPS)):
    loss = step(images, labels)
    if number % 100 == 0:
        print(number, float(loss))
""",
    "logistic regression, TF1 session": """
tf1 = tf.compat.v1
tf1.disable_eager_execution()
data = rng.normal(size=(8192, 512)).astype("float32")
kinds = (data @ rng.normal(size=(512,)) > 0).astype("float32")[:, None]
x, y = tf1.placeholder(tf.float32, (None, 512)), tf1.placeholder(tf.float32, (None, 1))
hidden = tf1.nn.relu(tf1.matmul(x, tf1.Variable(tf1.random.normal((512, 512), stddev=0.05))))
logits = tf1.matmul(hidden, tf1.Variable(tf1.random.normal((512, 1), stddev=0.05)))
loss = tf1.reduce_mean(tf1.nn.sigmoid_cross_entropy_with_logits(labels=y, logits=logits))
train = tf1.train.AdamOptimizer(1e-3).minimize(loss)
with tf1.Session() as session:
    session.run(tf1.global_variables_initializer())
    for number in range(STEPS):
        chosen = rng.integers(0, 8192, 128)
        _, value = session.run([train, loss], {x: data[chosen], y: kinds[chosen]})
        if number % 100 == 0:
            print(number, value)
""",
    "MobileNetV2, fit": """
x, y = pictures(256, 32)
body = keras.applications.MobileNetV2(
    (32, 32, 3), alpha=0.35, weights=None, include_top=False, pooling="avg"
)
model = keras.Sequential([body, keras.layers.Dense(4, activation="softmax")])
optimizer = keras.optimizers.Adam(1e-4)
model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
rows = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(256, seed=3).repeat().batch(16)
model.fit(rows, steps_per_epoch=max(1, STEPS // 2), epochs=2, verbose=2)
""",
}
FEW_STEPS = 60
"""Steps of the plain run by which the number of steps is chosen."""


class Turn(NamedTuple):
    """One run of a program."""

    seconds: float
    cpu_s: float
    found: str


def main() -> int:
    """Measure, print a table; return 1 if the debugger accused a program."""
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("programs", nargs="*", metavar="PROGRAM", help="all where none is named")
    ask.add_argument("--seconds", type=float, default=30.0, help="of a plain run")
    ask.add_argument("--rounds", type=int, default=3)
    asked = ask.parse_args()
    names = asked.programs or [name for name in PROGRAMS if name != "start-up"]
    accused = 0
    with tempfile.TemporaryDirectory() as folder:
        startup = [both(Path(folder), "start-up", 0) for _ in range(asked.rounds)]
        empty = [median_of([pair[way] for pair in startup]) for way in (0, 1)]
        print(f"start-up: plain {empty[0].seconds:.1f} s, debugged {empty[1].seconds:.1f} s\n")
        print("| program | steps | plain s | debugged s | overhead | of CPU time | found |")
        print("|---|---|---|---|---|---|---|")
        for name in names:
            begun_s = run_plain(Path(folder), name, FEW_STEPS).seconds
            more_s = run_plain(Path(folder), name, 5 * FEW_STEPS).seconds - begun_s
            steps = FEW_STEPS + int(max(0.0, asked.seconds - begun_s) / more_s * 4 * FEW_STEPS)
            turns = [both(Path(folder), name, steps) for _ in range(asked.rounds)]
            plain, debugged = (median_of([pair[way] for pair in turns]) for way in (0, 1))
            wall, cpu = (
                statistics.median((two[at] - empty[1][at]) / (one[at] - empty[0][at]) - 1
                                  for one, two in turns)
                for at in (0, 1)
            )  # fmt: skip
            accused += bool(debugged.found)
            print(
                f"| {name} | {steps} | {plain.seconds:.1f} | {debugged.seconds:.1f} | {wall:+.1%} "
                f"| {cpu:+.1%} | {debugged.found or 'nothing'} |",
                flush=True,
            )
    return 1 if accused else 0


def median_of(turns: list[Turn]) -> Turn:
    """Take the medians, and what was found last."""
    seconds, cpu_s = (statistics.median(one[at] for one in turns) for at in (0, 1))
    return Turn(seconds, cpu_s, turns[-1].found)


def both(folder: Path, name: str, steps: int) -> tuple[Turn, Turn]:
    """Run a program plainly, then under the debugger."""
    return run_plain(folder, name, steps), run_debugged(folder, name, steps)


def run_plain(folder: Path, name: str, steps: int) -> Turn:
    """Run a program as it is."""
    return _run([sys.executable], folder, name, steps)


def run_debugged(folder: Path, name: str, steps: int) -> Turn:
    """Run a program under `headstart debug run`."""
    return _run([HEADSTART, "debug", "run", "--json"], folder, name, steps)


def _run(command: list[str], folder: Path, name: str, steps: int) -> Turn:
    (folder / "program.py").write_text(BEGIN + PROGRAMS[name], encoding="utf-8")
    begun_s, begun_cpu_s = time.perf_counter(), _children_s()
    done = subprocess.run(
        [*command, "program.py", str(steps)],
        cwd=folder,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    seconds, cpu_s = time.perf_counter() - begun_s, _children_s() - begun_cpu_s
    if command[0] == sys.executable:
        if done.returncode:
            sys.exit(f"{name} failed:\n{done.stderr[-2000:]}")
        return Turn(seconds, cpu_s, "")
    said = json.loads(done.stdout)["diagnoses"]
    return Turn(seconds, cpu_s, "; ".join(one["symptom"] for one in said))


def _children_s() -> float:
    """Return the processor's seconds of all processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    sys.exit(main())
