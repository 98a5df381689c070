"""The symptom rules over TensorBoard logs, after the training.

Logs hold what was logged: losses and metrics by epoch, or by batch where the TensorBoard callback
was told so (``update_freq="batch"``). Rules that need gradients or activations stay silent.
"""

import math
from pathlib import Path

from headstart.debug.diagnosis import Diagnosis
from headstart.debug.symptoms.callback import find_symptoms
from headstart.debug.symptoms.trace import TrainingTrace
from headstart.errors import RecordError

LOSS_TAGS = ("batch_loss", "loss", "epoch_loss")
"""Names under which Keras and others log the training loss, finest first."""


def diagnose_logs(log_dir: Path) -> list[Diagnosis]:
    """Judge a finished training by its TensorBoard logs.

    Args:
        log_dir: What was given to ``keras.callbacks.TensorBoard``; its ``train`` and
            ``validation`` folders are read.

    Returns:
        The findings, most likely first; empty for a healthy run.

    Raises:
        RecordError: There are no scalars named like a training loss.
    """
    train = _scalars(log_dir / "train") or _scalars(log_dir)
    tag = next((tag for tag in LOSS_TAGS if tag in train), None)
    if tag is None:
        raise RecordError(
            f"these logs hold no training loss (a scalar named {' or '.join(LOSS_TAGS)})",
            f"{log_dir}: {', '.join(sorted(train)) or 'no scalars'}",
            "train with keras.callbacks.TensorBoard(log_dir, update_freq='batch')",
        )
    trace = TrainingTrace(losses=train[tag], epochs=_epochs(log_dir, train), has_finished=True)
    return find_symptoms(trace)


def _epochs(log_dir: Path, train: dict[str, list[float]]) -> list[dict[str, float]]:
    """Epoch logs as Keras gives them to callbacks: validation metrics prefixed ``val_``."""
    named = {tag.removeprefix("epoch_"): values for tag, values in train.items()
             if tag.startswith("epoch_")}  # fmt: skip
    for tag, values in _scalars(log_dir / "validation").items():
        if tag.startswith("epoch_"):
            named[f"val_{tag.removeprefix('epoch_')}"] = values
    length = max(map(len, named.values()), default=0)
    return [
        {name: values[epoch] for name, values in named.items() if epoch < len(values)}
        for epoch in range(length)
    ]


def _scalars(folder: Path) -> dict[str, list[float]]:
    """Every scalar of the event files in a folder, in the order of its steps."""
    if not any(folder.glob("*tfevents*")):
        return {}
    from tensorboard.backend.event_processing import (  # type: ignore[import-untyped]
        event_accumulator,
    )
    from tensorboard.util.tensor_util import make_ndarray  # type: ignore[import-untyped]

    events = event_accumulator.EventAccumulator(
        str(folder), size_guidance={"tensors": 0, "scalars": 0}
    )
    events.Reload()
    found = {tag: [event.value for event in events.Scalars(tag)]
             for tag in events.Tags()["scalars"]}  # fmt: skip
    for tag in events.Tags()["tensors"]:  # TensorFlow 2 writes scalars as tensors
        arrays = [make_ndarray(event.tensor_proto) for event in events.Tensors(tag)]
        if all(array.shape == () and array.dtype.kind == "f" for array in arrays):
            found[tag] = [float(array) for array in arrays]
    return {tag: values for tag, values in found.items() if not all(map(math.isnan, values))}
