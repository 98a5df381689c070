"""What the symptom rules measured, as curves for TensorBoard."""

import math
from pathlib import Path

from headstart.debug.symptoms.trace import TrainingTrace


def write_curves(trace: TrainingTrace, folder: Path) -> None:
    """Write gradient norms and update ratios of each kernel, dead and saturated shares, losses.

    Args:
        trace: The record of a training.
        folder: Where the event file goes.
    """
    import tensorflow as tf

    with tf.init_scope(), tf.summary.create_file_writer(str(folder)).as_default():
        for step, loss in enumerate(trace.losses):
            _write("step_loss", loss, step)
        for sample in trace.samples:
            _write("gradient_norm/all", sample.gradient_norm, sample.step)
            _write("learning_rate", sample.learning_rate, sample.step)
            for place in sample.kernels():
                name = sample.names[place]
                _write(f"gradient_norm/{name}", sample.gradient_norms[place], sample.step)
                _write(f"update_ratio/{name}", sample.update_ratios[place], sample.step)
        for probe in trace.probes:
            for activity in probe.activities:
                _write(f"dead_share/{activity.layer}", activity.dead, probe.step)
                _write(f"saturated_share/{activity.layer}", activity.saturated, probe.step)


def _write(name: str, value: float, step: int) -> None:
    import tensorflow as tf

    if not math.isnan(value):
        tf.summary.scalar(name, value, step=step)
