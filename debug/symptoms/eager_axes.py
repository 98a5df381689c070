"""argmax and softmax over the wrong axis, where no graph shows it."""

import functools
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np

from headstart.debug.callsites import CallSite, is_users
from headstart.debug.diagnosis import Diagnosis
from headstart.debug.guard import harmless
from headstart.debug.symptoms.graph_rules import argmax_finding, over_rows_finding


def watch_argmax() -> Callable[[], list[Diagnosis]]:
    """Look at every argmax of numpy's, and eager one of TensorFlow's, that the program asks for.

    Returns:
        What tells the findings: lines that never saw more than one column.
    """
    import tensorflow as tf

    has_one: dict[CallSite, bool] = {}

    def watched(argmax: Any) -> Any:
        @functools.wraps(argmax)
        def argmax_and_tell(*args: Any, **kwargs: Any) -> Any:
            with harmless("the rule about argmax"):
                caller = sys._getframe(1)
                site = CallSite(caller.f_code.co_filename, caller.f_lineno)
                values = args[0] if args else kwargs.get("a", kwargs.get("input"))
                axis = args[1] if len(args) > 1 else kwargs.get("axis")
                shape = tuple(getattr(values, "shape", ()))
                if len(shape) == 2 and (shape[0] or 2) > 1 and axis in (1, -1):
                    has_one[site] = has_one.get(site, True) and shape[1] == 1
            return argmax(*args, **kwargs)

        return argmax_and_tell

    if find_spec("numba") is None:  # it knows numpy's functions by what they are, and no others
        np.argmax = watched(np.argmax)
    put_in_place(tf, "argmax", watched(tf.argmax))
    tf.math.argmax = tf.argmax
    return lambda: [
        argmax_finding(site) for site, is_one in has_one.items() if is_one and is_users(site.file)
    ]


def watch_softmax(module: Any, tell: Callable[[Diagnosis], None]) -> None:
    """Look at every eager softmax that the program asks for.

    Args:
        module: Where the program finds it: ``tf.nn``, or ``keras.ops`` once Keras is imported.
        tell: Is given the first finding of each line: one down the rows of a batch.
    """
    import tensorflow as tf

    told: set[CallSite] = set()

    def watched(softmax: Any) -> Any:
        @functools.wraps(softmax)
        def softmax_and_tell(*args: Any, **kwargs: Any) -> Any:
            with harmless("the rule about softmax"):
                caller = sys._getframe(1)
                site = CallSite(caller.f_code.co_filename, caller.f_lineno)
                scores = args[0] if args else kwargs.get("logits", kwargs.get("x"))
                axis = args[1] if len(args) > 1 else kwargs.get("axis")
                shape = tuple(getattr(scores, "shape", ()))
                # Rows against rows (a contrastive loss) are as many one way as the other.
                is_down = len(shape) == 2 and axis in (0, -2) and shape[1] not in (1, shape[0])
                if is_down and tf.executing_eagerly() and site not in told and is_users(site.file):
                    told.add(site)
                    tell(over_rows_finding(shape[1], site))
            return softmax(*args, **kwargs)

        return softmax_and_tell

    put_in_place(module, "softmax", watched(module.softmax))


def put_in_place(module: Any, name: str, wrapper: Any) -> None:
    """Replace a public function, also where it is defined: by that it is pickled.

    Args:
        module: The module that the program finds it in.
        name: Its name there.
        wrapper: What takes its place, made with ``functools.wraps``.
    """
    original: Any = getattr(module, name)
    setattr(module, name, wrapper)
    home, own_name = sys.modules.get(original.__module__), original.__qualname__
    if home is not None and getattr(home, own_name, None) is original:
        setattr(home, own_name, wrapper)
