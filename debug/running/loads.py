"""Weights that are loaded and change nothing: not one of the names, or shapes, was the model's.

``by_name`` and ``skip_mismatch`` pass over what does not fit, and a `tf.train.Checkpoint` waits for
variables that may be made later: neither says so where nothing fits at all.
"""

import functools
from typing import Any

from headstart.debug.callsites import CallSite, calling_site
from headstart.debug.diagnosis import Diagnosis
from headstart.debug.guard import harmless
from headstart.debug.internals import private

MAX_RESTORED = 20
"""Latest restored checkpoints that are asked at the end what became of them."""


class Loads:
    """What the program loads into its models."""

    def __init__(self) -> None:
        self._found: list[Diagnosis] = []
        self._restored: list[tuple[Any, Any, CallSite | None]] = []

    def on_load(self, model: Any, assigned: set[int], how: dict[str, Any]) -> None:
        """Note a ``load_weights`` that ended well.

        Args:
            model: Model that was loaded into.
            assigned: Identities of the variables that were given a value.
            how: Arguments of the call.
        """
        own = {id(variable) for variable in model.variables}
        if not own or own & assigned:
            return
        options = [name for name in ("by_name", "skip_mismatch") if how.get(name)]
        self._found.append(
            _nothing_loaded(
                f"load_weights loaded nothing: none of the {len(own)} variables of model "
                f"{model.name!r} was given a value"
                + (f", and {' and '.join(options)}=True hides that" if options
                   else "")
                + ". The model keeps its random initial values.",
                calling_site(),
                "compare the names: [layer.name for layer in model.layers] with those in the file; "
                "give the layers explicit names, the same when saving and when loading",
                "load once without by_name and skip_mismatch: the error says what does not match",
            )
        )  # fmt: skip

    def on_restore(self, checkpoint: Any, status: Any) -> None:
        """Note a restored checkpoint: what it waits for may be made later."""
        self._restored = [*self._restored, (checkpoint, status, calling_site())][-MAX_RESTORED:]

    def diagnoses(self) -> list[Diagnosis]:
        """Return what was found; call it when the program has ended."""
        found = list(self._found)
        for checkpoint, status, site in self._restored:
            with harmless("the rules about checkpoints"):
                if _is_empty(checkpoint, status):
                    found.append(
                        _nothing_loaded(
                            "The checkpoint was restored, but none of its variables matched the "
                            "objects it was restored into: tf.train.Checkpoint(...) was given "
                            "other names when it was saved. The model keeps its random initial "
                            "values.",
                            site,
                            "use the same names as when the checkpoint was saved: "
                            "tf.train.Checkpoint(model=model)",
                            "make mismatches an error: "
                            "checkpoint.restore(path).assert_existing_objects_matched()",
                        )
                    )
        return found


def _is_empty(checkpoint: Any, status: Any) -> bool:
    """Tell whether nothing of a checkpoint's variables was taken, though there were some to take.

    A count of how often it was saved is in every checkpoint and matches always.
    """
    known: Any = getattr(status, "_checkpoint", None)
    # There was no file, which a program may well start without, or one that knows names alone.
    if not hasattr(known, "object_graph_proto"):
        return False
    counter = getattr(checkpoint, "save_counter", None)
    nodes = enumerate(known.object_graph_proto.nodes)
    saved = [number for number, node in nodes if node.attributes]
    taken = [known.object_by_proto_id.get(number) for number in saved]
    others = [one for one in taken if one is None or one is not counter]
    return bool(others) and all(one is None for one in others)


def _nothing_loaded(cause: str, site: CallSite | None, *suggestions: str) -> Diagnosis:
    return Diagnosis(
        symptom="nothing-loaded",
        cause=cause,
        phase="model",
        confidence=0.96,
        suggestions=suggestions,
    ).at(site)


def watch_checkpoints(loads: Loads) -> None:
    """Let every `tf.train.Checkpoint` tell what it restores."""
    import tensorflow as tf

    read = tf.train.Checkpoint.read  # restore() calls it

    @functools.wraps(read)
    def read_and_tell(checkpoint: Any, *args: Any, **kwargs: Any) -> Any:
        status = read(checkpoint, *args, **kwargs)
        with harmless("the watch over checkpoints"):
            loads.on_restore(checkpoint, status)
        return status

    tf.train.Checkpoint.read = read_and_tell


def watch_loads(loads: Loads) -> None:
    """Let every Keras model tell what it loads."""
    import keras

    load, variables = keras.Model.load_weights, private("KerasVariable")

    @functools.wraps(load)
    def load_and_tell(model: Any, *args: Any, **kwargs: Any) -> Any:
        assigned: set[int] = set()
        assign = variables.assign

        def assign_and_note(variable: Any, *values: Any, **more: Any) -> Any:
            result = assign(variable, *values, **more)
            assigned.add(id(variable))
            return result

        variables.assign = assign_and_note
        try:
            result = load(model, *args, **kwargs)
        finally:
            variables.assign = assign
        with harmless("the watch over load_weights"):
            named = {"skip_mismatch": args[1]} if len(args) > 1 else {}
            loads.on_load(model, assigned, {**named, **kwargs})
        return result

    keras.Model.load_weights = load_and_tell
