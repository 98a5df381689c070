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

    def note(site: CallSite, args: Any, kwargs: Any) -> None:
        values = args[0] if args else kwargs.get("a", kwargs.get("input"))
        axis = args[1] if len(args) > 1 else kwargs.get("axis")
        shape = tuple(getattr(values, "shape", ()))
        if len(shape) == 2 and (shape[0] or 2) > 1 and axis in (1, -1):
            has_one[site] = has_one.get(site, True) and shape[1] == 1

    if find_spec("numba") is None:  # it knows numpy's functions by what they are, and no others
        put_in_place(np, "argmax", "the rule about argmax", note)
    put_in_place(tf, "argmax", "the rule about argmax", note)
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

    def note(site: CallSite, args: Any, kwargs: Any) -> None:
        scores = args[0] if args else kwargs.get("logits", kwargs.get("x"))
        axis = args[1] if len(args) > 1 else kwargs.get("axis")
        shape = tuple(getattr(scores, "shape", ()))
        # Rows against rows (a contrastive loss) are as many one way as the other.
        is_down = len(shape) == 2 and axis in (0, -2) and shape[1] not in (1, shape[0])
        if is_down and tf.executing_eagerly() and site not in told and is_users(site.file):
            told.add(site)
            tell(over_rows_finding(shape[1], site))

    put_in_place(module, "softmax", "the rule about softmax", note)


def put_in_place(
    module: Any, name: str, rule: str, note: Callable[[CallSite, Any, Any], None]
) -> None:
    """Have every call of a public function noted, by whatever name it is pickled too.

    Args:
        module: The module that the program finds it in.
        name: Its name there.
        rule: What notes the calls, in words, should that fail.
        note: Is given the calling line, and the arguments by place and by name.
    """
    original: Any = getattr(module, name)

    @functools.wraps(original)
    def noted(*args: Any, **kwargs: Any) -> Any:
        with harmless(rule):
            caller = sys._getframe(1)
            note(CallSite(caller.f_code.co_filename, caller.f_lineno), args, kwargs)
        return original(*args, **kwargs)

    setattr(module, name, noted)
    home, own_name = sys.modules.get(original.__module__), original.__qualname__
    if home is not None and getattr(home, own_name, None) is original:
        setattr(home, own_name, noted)
