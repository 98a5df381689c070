"""What watching a training costs: step time of each tool over that of the bare training.

    python benchmarks/debug_overhead.py --steps 200 --rounds 7 --modes

(about 15 minutes on two idle cores; ``--network "small CNN 32²"`` and without ``--modes`` 3.)

Every tool trains the same seeded network on the same batches. Variants that may share a process
are interleaved round by round in one; each dump mode needs a fresh process (TensorFlow cannot turn
a dump off again), which measures the bare training beside it. Reported are medians over rounds of
the ratios of mean step times, first steps (tracing, filled buffers) left out: wall time, and CPU
time, which other programs on the machine disturb less.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from headstart.debug.replay.recorder import FlightRecorder
from headstart.debug.symptoms.callback import SymptomRules
from headstart.debug.traces.profile import StepProfiler

WARM_STEPS = 10
BATCH_ROWS = 32
MODES = ("NO_TENSOR", "CURT_HEALTH", "CONCISE_HEALTH", "FULL_HEALTH", "SHAPE", "FULL_TENSOR")
CIRCULAR_EVENTS = 1000  # TensorFlow's default; without a limit FULL_TENSOR fills gigabytes

Callbacks = Callable[[Path], list[Any]]
VARIANTS: dict[str, Callbacks] = {
    "off": lambda folder: [],
    "armed (flight recorder)": lambda folder: [FlightRecorder(folder)],
    "rules": lambda folder: [SymptomRules()],
    "armed and rules": lambda folder: [FlightRecorder(folder), SymptomRules()],
    "profile (all steps)": lambda folder: [StepProfiler(folder, WARM_STEPS, 10**6)],
}


class StepTimes(keras.callbacks.Callback):
    """Notes when each step ends; last in the list, so that the others' work counts."""

    def on_train_begin(self, logs=None):
        """Start anew."""
        self.ends_s: list[float] = []
        self.cpu_s: list[float] = []

    def on_train_batch_end(self, batch, logs=None):
        """Note the end of a step."""
        self.ends_s.append(time.perf_counter())
        self.cpu_s.append(time.process_time())

    def means_s(self) -> tuple[float, float]:
        """Mean wall and CPU seconds of a step after the first: sampled steps count in full."""
        last, steps = len(self.ends_s) - 1, len(self.ends_s) - 1 - WARM_STEPS
        wall_s = (self.ends_s[last] - self.ends_s[WARM_STEPS]) / steps
        return wall_s, (self.cpu_s[last] - self.cpu_s[WARM_STEPS]) / steps


def small_cnn() -> keras.Model:
    layers = keras.layers
    return keras.Sequential([
        keras.Input([32, 32, 3]),
        layers.Conv2D(32, 3, activation="relu"), layers.BatchNormalization(),
        layers.MaxPooling2D(), layers.Conv2D(64, 3, activation="relu"),
        layers.BatchNormalization(), layers.GlobalAveragePooling2D(),
        layers.Dense(64, activation="relu"), layers.Dense(10),
    ])  # fmt: skip


def mobilenet() -> keras.Model:
    return keras.applications.MobileNetV2(
        [96, 96, 3], weights=None, classes=10, classifier_activation=None
    )


NETWORKS = {"small CNN 32²": small_cnn, "MobileNetV2 96²": mobilenet}


def one_run(network: str, callbacks: list[Any], steps: int) -> tuple[float, float]:
    """Train a fresh network and return mean wall and CPU seconds of a step."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    model = NETWORKS[network]()
    model.compile(
        "adam",
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
    )
    rng = np.random.default_rng(0)
    x = rng.random((BATCH_ROWS, *model.input_shape[1:]), np.float32)
    y = rng.integers(0, 10, BATCH_ROWS)
    data = tf.data.Dataset.from_tensors((x, y)).cache().repeat(WARM_STEPS + steps)
    times = StepTimes()
    model.fit(data.prefetch(2), verbose=0, shuffle=False, callbacks=[*callbacks, times])
    return times.means_s()


def interleaved(network: str, steps: int, rounds: int) -> tuple[float, dict[str, list[float]]]:
    """Milliseconds of a bare step, and the median wall and CPU ratio of each variant."""
    ratios: dict[str, list[tuple[float, float]]] = {name: [] for name in VARIANTS}
    bare_ms = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as scratch:
            times = {
                name: one_run(network, make(Path(scratch) / str(place)), steps)
                for place, (name, make) in enumerate(VARIANTS.items())
            }
        wall_s, cpu_s = times["off"]
        bare_ms.append(1000 * wall_s)
        for name, (wall, cpu) in times.items():
            ratios[name].append((wall / wall_s, cpu / cpu_s))
    medians = {
        name: [statistics.median(column) for column in zip(*pairs, strict=True)]
        for name, pairs in ratios.items()
    }
    return statistics.median(bare_ms), medians


def dump_mode(network: str, mode: str, steps: int) -> list[float]:
    """Wall and CPU ratio of one mode, measured in this process, which is spent afterwards."""
    bare = one_run(network, [], steps)
    with tempfile.TemporaryDirectory() as scratch:
        if mode == "check_numerics":
            tf.debugging.enable_check_numerics()
        else:
            tf.debugging.experimental.enable_dump_debug_info(
                scratch, tensor_debug_mode=mode, circular_buffer_size=CIRCULAR_EVENTS
            )
        watched = one_run(network, [], steps)
    return [after / before for after, before in zip(watched, bare, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--network", choices=NETWORKS, action="append")
    parser.add_argument("--modes", action="store_true", help="Measure the dump modes as well.")
    parser.add_argument("--one-mode", help=argparse.SUPPRESS)
    options = parser.parse_args()
    networks = options.network or list(NETWORKS)
    if options.one_mode:
        print(json.dumps(dump_mode(networks[0], options.one_mode, options.steps)))
        return
    print(f"TensorFlow {tf.__version__}, Keras {keras.__version__}, {os.cpu_count()} CPU cores, "
          f"batch {BATCH_ROWS}, {options.steps} steps, {options.rounds} rounds")  # fmt: skip
    for network in networks:
        bare_ms, ratios = interleaved(network, options.steps, options.rounds)
        print(f"\n{network}: {bare_ms:.1f} ms a step with everything off", flush=True)
        print(f"  {'':<28}{'wall':>7}{'CPU':>7}")
        for name, (wall, cpu) in ratios.items():
            print(f"  {name:<28}{wall:7.3f}{cpu:7.3f}")
        for mode in ("check_numerics", *MODES) if options.modes else ():
            ended = subprocess.run(
                [sys.executable, __file__, "--one-mode", mode, "--network", network,
                 "--steps", str(options.steps)],
                check=True, capture_output=True, text=True,
            )  # fmt: skip
            wall, cpu = json.loads(ended.stdout.splitlines()[-1])
            label = mode if mode == "check_numerics" else f"dump {mode}"
            print(f"  {label:<28}{wall:7.2f}{cpu:7.2f}", flush=True)


if __name__ == "__main__":
    main()
