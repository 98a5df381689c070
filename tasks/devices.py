"""The GPUs of one machine: how work is shared out among them.

A process uses all that it sees (CUDA_VISIBLE_DEVICES narrows that). One process with a
`tf.distribute.MirroredStrategy` keeps several GPUs busy; several machines, or several processes
on one, are the business of `headstart.tasks.spreading`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

Batch = npt.NDArray[np.uint8]


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
        over: A strategy.

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
