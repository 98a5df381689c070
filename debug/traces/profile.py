"""Profiles of chosen training steps, with the answer and not only the chart.

    profiler = StepProfiler(log_dir, first_step=10, num_steps=20)
    model.fit(dataset, callbacks=[profiler])
    print(render_profile(profiler.summary))

What TensorBoard's profiler opens lies in ``log_dir/plugins/profile``. The steps are marked by this
callback itself: Keras's own ``profile_batch`` writes no step markers, and so no step times.
"""

import contextlib
import io
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from headstart.debug.diagnosis import Diagnosis
from headstart.debug.replay.taps import tap, untap
from headstart.debug.symptoms.machine import MAX_WAIT_SHARE, resident_bytes
from headstart.debug.symptoms.retraces import RetraceCounter
from headstart.errors import RecordError

FIRST_STEP = 5
"""First step profiled: the ones before trace functions and fill buffers."""
NUM_STEPS = 20
"""Steps profiled; a few hundred fill a gigabyte."""
NUM_TOP_OPS = 10
"""Ops in a summary."""
MAX_PYTHON_SHARE = 0.2
"""Share of the op time spent in Python called from the graph from which on it is worth naming."""


@dataclass(frozen=True)
class OpTime:
    """Time spent in one kind of op on one kind of device.

    Args:
        op_type: Its type, such as ``Conv2D``.
        name: The op that took most of it.
        device: Where it ran, ``Host`` or ``Device``.
        self_ms: Milliseconds over all profiled steps, ops inside it not counted.
        share: Share of the time of all ops, from 0 to 1.
        occurrences: How often it ran.
    """

    op_type: str
    name: str
    device: str
    self_ms: float
    share: float
    occurrences: int


@dataclass(frozen=True)
class ProfileSummary:
    """What a profile says.

    Args:
        num_steps: Number of profiled steps whose beginning and end are marked.
        step_ms: Mean duration of a step.
        input_share: Share of the step time spent waiting for input, from 0 to 1.
        compute_share: The rest of it.
        top_ops: Ops by self time, longest first.
        num_retraces: Functions traced while the profile ran.
        peak_bytes: Greatest memory in use by TensorFlow's allocators; on a CPU, where they do not
            tell, that of the process; 0 where neither is known.
        diagnoses: What to do about it.
    """

    num_steps: int
    step_ms: float
    input_share: float
    compute_share: float
    top_ops: tuple[OpTime, ...]
    num_retraces: int
    peak_bytes: int
    diagnoses: tuple[Diagnosis, ...]


class StepProfiler(keras.callbacks.Callback):  # type: ignore[misc]
    """Profiles some steps of a training run.

    Args:
        log_dir: Where TensorBoard will look; the profile goes to ``plugins/profile`` in it.
        first_step: First step profiled, counted from 0 over all epochs.
        num_steps: How many; training may end before.
        stops_after: Whether training ends with the last profiled step.
    """

    needs_every_batch = True

    def __init__(
        self,
        log_dir: Path,
        first_step: int = FIRST_STEP,
        num_steps: int = NUM_STEPS,
        stops_after: bool = False,
    ) -> None:
        super().__init__()
        self.log_dir = Path(log_dir)
        self.first_step = first_step
        self.num_steps = num_steps
        self.stops_after = stops_after
        self.summary: ProfileSummary | None = None
        self._step = -1
        self._peak_bytes = 0
        self._retraces = RetraceCounter()
        self._marker: Any = None
        self._is_on = False

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Tap the training loop, to end the profile where a step fails."""
        tap(self.model, self)

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """End the profile where training was shorter than asked for."""
        self._stop()
        untap(self.model, self)

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Start the profile at its first step, and mark each."""
        self._step += 1
        if self._step == self.first_step:
            self._retraces.__enter__()
            with _quiet():
                tf.profiler.experimental.start(str(self.log_dir))
            self._is_on = True
        if self._is_on:
            self._marker = tf.profiler.experimental.Trace("train", step_num=self._step, _r=1)
            self._marker.__enter__()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """End the mark, and the profile after its last step."""
        self._unmark()
        if self._is_on and self._step >= self.first_step + self.num_steps - 1:
            self._stop()
            if self.stops_after:
                self.model.stop_training = True

    def on_batch(self, batch: Any, wait_s: float) -> None:
        """Note the process's memory (called by the tap)."""
        if self._is_on:
            self._peak_bytes = max(self._peak_bytes, resident_bytes())

    def on_step_error(self, error: BaseException) -> None:
        """Write what there is of the profile."""
        self._unmark()
        self._stop()

    def _unmark(self) -> None:
        if self._marker is not None:
            self._marker.__exit__(None, None, None)
            self._marker = None

    def _stop(self) -> None:
        if not self._is_on:
            return
        self._is_on = False
        with _quiet():
            tf.profiler.experimental.stop()
        self._retraces.__exit__(None, None, None)
        summary = summarize(self.log_dir)
        traces = self._retraces.diagnoses()
        self.summary = replace(
            summary,
            num_retraces=len(self._retraces.traces),
            peak_bytes=summary.peak_bytes or self._peak_bytes,
            diagnoses=(*summary.diagnoses, *traces),
        )


def summarize(log_dir: Path) -> ProfileSummary:
    """Read the newest profile below a folder.

    Args:
        log_dir: A log directory, or the profile's own folder.

    Returns:
        What it says.

    Raises:
        RecordError: There is no profile.
    """
    found = sorted(log_dir.rglob("*.xplane.pb"), key=lambda path: path.stat().st_mtime_ns)
    if not found:
        raise RecordError(
            "this folder holds no profile (plugins/profile/*/*.xplane.pb)",
            str(log_dir),
            "record one with `headstart debug profile SCRIPT`",
        )
    steps = _steps(_tool(found[-1], "input_pipeline_analyzer"))
    step_ms = sum(total for total, _ in steps)
    input_share = sum(wait for _, wait in steps) / step_ms if step_ms else 0.0
    ops = _top_ops(_tool(found[-1], "framework_op_stats"))
    return ProfileSummary(
        num_steps=len(steps),
        step_ms=step_ms / len(steps) if steps else 0.0,
        input_share=input_share,
        compute_share=1.0 - input_share if steps else 0.0,
        top_ops=ops,
        num_retraces=0,
        peak_bytes=_peak_bytes(_tool(found[-1], "memory_profile")),
        diagnoses=tuple(_advice(input_share, ops)),
    )


def render_profile(summary: ProfileSummary) -> str:
    """Draw a summary as text for a terminal.

    Args:
        summary: What a profile says.

    Returns:
        The text, without a trailing newline.
    """
    peak = f"{summary.peak_bytes / 2**20:.1f} MiB" if summary.peak_bytes else "not recorded"
    lines = [
        f"steps profiled     {summary.num_steps}",
        f"step time          {summary.step_ms:.2f} ms",
        f"waiting for input  {summary.input_share:.1%}",
        f"compute            {summary.compute_share:.1%}",
        f"retraces           {summary.num_retraces}",
        f"memory peak        {peak}",
        "",
        f"{'op':<28}{'self ms':>10}{'share':>8}{'runs':>8}",
    ]
    lines += [
        f"{op.op_type[:27]:<28}{op.self_ms:>10.2f}{op.share:>8.1%}{op.occurrences:>8}"
        for op in summary.top_ops
    ]
    return "\n".join(lines)


def _advice(input_share: float, ops: Sequence[OpTime]) -> Iterator[Diagnosis]:
    if input_share >= MAX_WAIT_SHARE:
        yield Diagnosis(
            symptom="input-bound",
            cause=f"The profiled training steps wait for their input {input_share:.0%} of the "
            "time.",
            phase="data",
            severity="warning",
            confidence=0.9,
            suggestions=(
                "end the pipeline with .prefetch(tf.data.AUTOTUNE)",
                "give map num_parallel_calls=tf.data.AUTOTUNE, and no Python in it",
                "cache what does not change",
            ),
            evidence={"input_share": input_share},
        )
    for op in ops:
        if op.op_type in ("PyFunc", "EagerPyFunc") and op.share >= MAX_PYTHON_SHARE:
            yield Diagnosis(
                symptom="python-in-graph",
                cause=f"Python code called from the graph takes {op.share:.0%} of the op time.",
                op=op.name,
                op_type=op.op_type,
                phase="data",
                severity="warning",
                confidence=0.8,
                suggestions=("write the function in TensorFlow ops", "do it once, before training"),
                evidence={"share": op.share},
            )


def _steps(tables: Any) -> list[tuple[float, float]]:
    """Milliseconds of each step, and of it those spent waiting for input."""
    for table in tables if isinstance(tables, list) else []:
        rows = _rows(table)
        if rows and "stepTimeMs" in rows[0] and "infeedTimeMs" in rows[0]:
            return [(float(row["stepTimeMs"]), float(row["infeedTimeMs"] or 0.0)) for row in rows]
    return []


def _top_ops(tables: Any) -> tuple[OpTime, ...]:
    rows = _rows(tables[0]) if isinstance(tables, list) and tables else []
    by_type: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        if row["type"] != "IDLE":
            by_type.setdefault((row["type"], row["host_or_device"]), []).append(row)
    total = sum(float(row["total_self_time"]) for group in by_type.values() for row in group)
    ops = [
        OpTime(
            op_type=op_type,
            name=max(group, key=lambda row: float(row["total_self_time"]))["operation"],
            device=device,
            self_ms=sum(float(row["total_self_time"]) for row in group) / 1000.0,
            share=sum(float(row["total_self_time"]) for row in group) / total if total else 0.0,
            occurrences=sum(int(row["occurrences"]) for row in group),
        )
        for (op_type, device), group in by_type.items()
    ]
    return tuple(sorted(ops, key=lambda op: -op.self_ms)[:NUM_TOP_OPS])


def _peak_bytes(profile: Any) -> int:
    per_allocator = (
        profile.get("memoryProfilePerAllocator", {}) if isinstance(profile, dict) else {}
    )
    return sum(
        int(entry.get("profileSummary", {}).get("peakBytesUsageLifetime", 0))
        for entry in per_allocator.values()
    )


def _rows(table: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a Google chart's table, by column id."""
    names = [column["id"] for column in table.get("cols", [])]
    return [
        dict(zip(names, (cell.get("v") for cell in row["c"]), strict=False))
        for row in table.get("rows", [])
    ]


def _tool(file: Path, name: str) -> Any:
    from xprof.convert import raw_to_tool_data

    with _quiet():
        text, _ = raw_to_tool_data.xspace_to_tool_data([str(file)], name, {})
    return json.loads(text) if text else {}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the C++ log lines of profiler and converter off the terminal."""
    try:
        saved = os.dup(2)
    except OSError:  # no stderr at all
        yield
        return
    with contextlib.redirect_stderr(io.StringIO()), Path(os.devnull).open("w") as sink:
        os.dup2(sink.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
