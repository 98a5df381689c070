"""Which of TensorFlow's functions are looked at when a program calls them, and who looks."""

from collections.abc import Callable
from typing import Any

from headstart.debug.diagnosis import Diagnosis
from headstart.debug.preflight.augmentation import watch_flips, watch_layer_flips
from headstart.debug.running.loads import Loads, watch_checkpoints
from headstart.debug.running.own_sessions import OwnSessions, watch_minimizers
from headstart.debug.running.watched import watched
from headstart.debug.symptoms.adapted import watch_adapts
from headstart.debug.symptoms.batches import watch_iterators
from headstart.debug.symptoms.broadcasts import watch_eager_broadcasts, watch_keras_broadcasts
from headstart.debug.symptoms.dropouts import watch_dropout
from headstart.debug.symptoms.eager_axes import watch_argmax, watch_softmax
from headstart.debug.symptoms.loss_scales import watch_loss_scales
from headstart.debug.symptoms.own_loops import tracing_site
from headstart.debug.symptoms.pipelines import watch_pipelines

Tell = Callable[[Diagnosis], None]


def watch_calls(
    tell: Tell,
    tell_unless_well: Tell,
    sessions: OwnSessions,
    loads: Loads,
    in_keras: Callable[[], Any],
) -> Callable[[], list[Diagnosis]]:
    """Look at calls of TensorFlow's public functions.

    Args:
        tell: Is given what is wrong whatever comes of it.
        tell_unless_well: Is given what is wrong unless the training goes well.
        sessions: What is known of the program's sessions.
        loads: What it loads.
        in_keras: Tells whether one of Keras's own loops runs.

    Returns:
        What has to be said of calls of argmax, once the program has ended.
    """
    import tensorflow as tf

    watch_eager_broadcasts(tell)
    watch_softmax(tf.nn, tell_unless_well)
    watch_dropout(tell_unless_well)
    watch_pipelines(tell)
    watch_minimizers(sessions)
    watch_checkpoints(loads)
    watch_flips(tracing_site)
    watch_iterators(in_keras)
    return watch_argmax()


def watch_keras_calls(tell: Tell, tell_unless_well: Tell, in_keras: Callable[[], Any]) -> None:
    """Look at calls of Keras's public functions, once Keras is imported.

    Args:
        tell: Is given what is wrong whatever comes of it.
        tell_unless_well: Is given what is wrong unless the training goes well.
        in_keras: Tells whether one of Keras's own loops runs.
    """
    import keras

    watch_keras_broadcasts(tell)
    watch_softmax(keras.ops, tell_unless_well)
    watch_loss_scales(tell)
    watch_adapts(tell, lambda: watched.fits)
    watch_layer_flips(tracing_site, in_keras)
