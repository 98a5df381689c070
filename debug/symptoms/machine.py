"""Symptom rules about the machine: waiting for input, retracing, memory."""

import itertools
import os
from pathlib import Path

from headstart.debug.diagnosis import Diagnosis
from headstart.debug.symptoms.trace import TrainingTrace

MIN_TIMED_STEPS = 12
"""Steps beyond the first of their epoch before their times are judged."""
MAX_WAIT_SHARE = 0.4
"""Share of the training time spent waiting for batches from which on the input is too slow."""
MIN_WAIT_S = 0.005
"""... where a step waits at least this long: tiny models outrun any input, harmlessly."""
MAX_RETRACES = 3
"""Traces of the train step beyond the first that are usual: a shorter last batch and its kin."""
MIN_GROWTHS = 8
"""Memory readings, past the first epoch, before their growth is judged."""
MIN_GROWTH_BYTES = 256 * 2**20
"""Growth from which on memory leaks (caches and allocators settle in the first epoch)."""
MIN_GROWING_SHARE = 0.7
"""Share of the readings that must rise: a leak is steady, a cache is not."""


def starved_for_data(trace: TrainingTrace) -> list[Diagnosis]:
    """Say that training waits for its input."""
    firsts = set(trace.epoch_starts)
    pairs = [
        (wait_s, total_s)
        for step, (wait_s, total_s) in enumerate(
            zip(trace.waits_s, trace.step_times_s, strict=False)
        )
        if step not in firsts and step > 0
    ]
    if len(pairs) < MIN_TIMED_STEPS:
        return []
    pairs = sorted(pairs, key=lambda pair: pair[1])[: -max(1, len(pairs) // 20)]  # hiccups
    # The median: on a busy machine a few steps wait long, whatever the pipeline is like.
    wait_s = sorted(wait for wait, _ in pairs)[len(pairs) // 2]
    share = sum(wait for wait, _ in pairs) / sum(total for _, total in pairs)
    if share < MAX_WAIT_SHARE or wait_s < MIN_WAIT_S:
        return []
    return [
        Diagnosis(
            symptom="input-bound",
            cause=f"Training waits for its input {share:.0%} of the time "
            f"({1000 * wait_s:.1f} ms in a typical training step).",
            phase="data",
            severity="warning",
            confidence=0.8,
            suggestions=(
                "end the pipeline with .prefetch(tf.data.AUTOTUNE)",
                "give map num_parallel_calls=tf.data.AUTOTUNE, and no Python in it "
                "(py_function and generators run one at a time)",
                "cache what does not change: .cache(), or features of a frozen backbone",
            ),
            evidence={"wait_share": share, "wait_ms": 1000 * wait_s},
        )
    ]


def retrace_storm(trace: TrainingTrace) -> list[Diagnosis]:
    """Say that the train step is traced again and again."""
    if trace.num_retraces <= MAX_RETRACES:
        return []
    reason = f": {trace.retrace_causes[0]}" if trace.retrace_causes else ""
    return [
        Diagnosis(
            symptom="retracing",
            cause=f"The training step was traced {trace.num_retraces + 1} times{reason}.",
            phase="runtime",
            severity="warning",
            confidence=0.8,
            suggestions=(
                "give all batches the same shape: drop_remainder=True, or padded_batch to fixed "
                "shapes",
                "pass tensors, not Python numbers, to tf.functions",
            ),
            evidence={"num_traces": trace.num_retraces + 1, "causes": list(trace.retrace_causes)},
        )
    ]


def memory_growth(trace: TrainingTrace) -> list[Diagnosis]:
    """Say that the process grows steadily after its first epoch."""
    settled = trace.epoch_starts[1] if len(trace.epoch_starts) > 1 else None
    if settled is None:
        return []
    readings = [num_bytes for step, num_bytes in trace.memory if step >= settled]
    if len(readings) < MIN_GROWTHS:
        return []
    rises = sum(after > before for before, after in itertools.pairwise(readings))
    growth = readings[-1] - readings[0]
    if growth < MIN_GROWTH_BYTES or rises < MIN_GROWING_SHARE * (len(readings) - 1):
        return []
    return [
        Diagnosis(
            symptom="memory-growth",
            cause=f"The process has grown by {growth / 2**20:.0f} MiB since its second epoch began "
            "and is still growing: something is kept from one training step to the next.",
            phase="runtime",
            severity="warning",
            confidence=0.7,
            suggestions=(
                "keep numbers, not tensors, in lists and callbacks (float(loss))",
                "create models, tf.functions and datasets outside loops",
                "tf.keras.backend.clear_session() between models",
            ),
            evidence={"growth_bytes": growth, "readings": readings[-MIN_GROWTHS:]},
        )
    ]


def resident_bytes() -> int:
    """Return the process's resident memory in bytes; 0 where the system does not tell."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return 0
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
