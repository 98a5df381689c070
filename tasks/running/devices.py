"""The processors of one machine: which they are, and how work is shared out among its GPUs.

A process uses all GPUs that it sees (CUDA_VISIBLE_DEVICES narrows that). One process with a
`tf.distribute.MirroredStrategy` keeps several GPUs busy; several machines, or several processes
on one, are the business of `headstart.tasks.running.spreading`.
"""

import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from headstart.tasks.running.spreading import available_cores

Batch = npt.NDArray[np.uint8]
CPUINFO = Path("/proc/cpuinfo")
"""Where Linux names its processors."""


def machine_fingerprint() -> list[str | int]:
    """Return what a measured speed depends on besides the program, for keys.

    Returns:
        Architecture, model of the CPU, cores that this process may use, and each GPU's model.
    """
    return [platform.machine(), _cpu_name(), available_cores(), *_gpu_names()]


def cpu_features() -> list[str | int]:
    """Return what decides which program is fastest on the processor, for keys.

    Returns:
        Architecture, cores that this process may use, and the features that Linux names.
    """
    features = _cpuinfo("flags") or _cpuinfo("Features")  # on x86, on Arm
    return [platform.machine(), available_cores(), *sorted(features.split())]


def _cpu_name() -> str:
    return _cpuinfo("model name") or platform.processor()


def _cpuinfo(field: str) -> str:
    """Return a field of the first processor; "" where the system does not tell."""
    try:
        lines = CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":") for line in lines)
    return next((text.strip() for name, _, text in named if name.strip() == field), "")


def _gpu_names() -> list[str]:
    gpus = tf.config.list_physical_devices("GPU")
    details = (tf.config.experimental.get_device_details(gpu) for gpu in gpus)
    return [str(detail.get("device_name", "GPU")) for detail in details]


def strategy() -> Any:
    """Return a MirroredStrategy over the GPUs there are; TensorFlow's default for one or none."""
    if len(tf.config.list_logical_devices("GPU")) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def num_replicas(over: Any) -> int:
    """Return how many batches a strategy computes at once."""
    return int(over.num_replicas_in_sync)


def replicate(
    function: Callable[[Any], Sequence[Any]], over: Any
) -> Callable[[Sequence[Batch]], list[Sequence[Any]]]:
    """Let each device of a strategy compute a batch of its own.

    A batch is computed as one device alone would, whatever the number of devices: on devices of
    one kind the results are the same bit for bit.

    Args:
        function: Without variables, from a batch uint8 [n, height, width, 3] to tensors [n, ...].
        over: A ``tf.distribute`` strategy.

    Returns:
        A function of up to `num_replicas` batches that returns the function's results of each.
    """
    if num_replicas(over) == 1:
        return lambda batches: [function(tf.constant(batch)) for batch in batches]
    # As one function the replicas run at the same time; called eagerly, one after another.
    on_all = tf.function(
        lambda values: over.run(lambda batch: list(function(batch)), args=(values,)),
        autograph=False,
        reduce_retracing=True,
    )

    def compute(batches: Sequence[Batch]) -> list[Sequence[Any]]:
        if len(batches) < num_replicas(over):  # the last ones
            return [function(tf.constant(batch)) for batch in batches]
        values = over.experimental_distribute_values_from_function(
            lambda context: tf.constant(batches[context.replica_id_in_sync_group])
        )
        outputs = [over.experimental_local_results(output) for output in on_all(values)]
        return [[output[replica] for output in outputs] for replica in range(len(batches))]

    return compute
