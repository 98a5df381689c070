"""Variables that Keras does not know of, and so never trains: a tf.Variable as an attribute.

Keras 3 tracks what ``add_weight`` makes, ``keras.Variable`` and layers; a ``tf.Variable``, or a
``tf.Module`` with some, it does not. Keras 2 (``tf_keras``) tracked both.
"""

import ast
import inspect
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from headstart.debug.callsites import CallSite, is_users, tree_of
from headstart.debug.diagnosis import Diagnosis
from headstart.debug.preflight.facts import Facts, pick_rows
from headstart.debug.source.syntax import targets_of
from headstart.debug.symptoms.activity_probe import unchanged
from headstart.debug.symptoms.variables import storage_of

MIN_RANK = 2
"""Dimensions from which on a variable is a layer's weights, and no setting of the program's."""
MAX_PARTS = 64
"""Parts of a list or a dictionary that are looked at."""
_RANDOM = re.compile(
    r"random|rand[ni]?\(|normal\(|glorot|xavier|lecun|he_(normal|uniform)|initiali[sz]er",
    re.IGNORECASE,
)
"""Text by which values are drawn ..."""
_READ = re.compile(r"constant|identity|eye\(|load|read|open\(", re.IGNORECASE)
"""... and not computed or read."""
_TRAINED = re.compile(r"_*(w\d*|w_\w+|theta|\w*(weight|kernel|embed)\w*)", re.IGNORECASE)
"""What attributes are called that are meant to be trained."""
_FIXED = re.compile(r"random|fixed|frozen|fourier|reservoir|project|hash|static", re.IGNORECASE)
"""... and classes whose random values are meant to stay."""
_HOW = (
    "in build or __init__: self.w = self.add_weight(shape=(…), initializer=…, name='w')",
    "or self.w = keras.Variable(…), or a Keras layer in its place",
)


def untracked(model: Any) -> list[tuple[Any, str, Any]]:
    """Return the trainable variables of TensorFlow's that a model holds and does not know.

    Args:
        model: A Keras model.

    Returns:
        Each with what holds it and the name of the attribute.
    """
    known = {id(storage_of(one)) for one in model.variables}
    return [
        (owner, name, variable)
        for layer in model._flatten_layers()
        for owner, name, variable in _held(layer, set())
        if id(variable) not in known and variable.trainable and variable.dtype.is_floating
    ]


def _held(owner: Any, seen: set[int]) -> Iterator[tuple[Any, str, Any]]:
    import tensorflow as tf

    if id(owner) in seen:  # modules may hold each other
        return
    seen.add(id(owner))
    for name, value in list(vars(owner).items()):
        if name.startswith("_self_"):  # what Keras and TensorFlow keep for themselves
            continue
        for part in _parts(value):
            if isinstance(part, tf.Variable):
                yield owner, name, part
            elif isinstance(part, tf.Module) and not hasattr(part, "add_weight"):
                yield from _held(part, seen)


def _parts(value: Any) -> list[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    return list(value)[:MAX_PARTS] if isinstance(value, list | tuple) else [value]


def nothing_tracked(model: Any) -> list[Diagnosis]:
    """Find a model that trains nothing, because Keras does not know its variables.

    Args:
        model: A Keras model without a variable to train.
    """
    held = untracked(model)
    if not held:
        return []
    owner, name, _ = held[0]
    return [
        Diagnosis(
            symptom="variables-not-tracked",
            cause=f"Nothing is trained: Keras does not track {_shown(held)}, so that "
            "trainable_variables is empty and the weights never change. Keras 3 knows what "
            "add_weight makes, keras.Variable and layers; a tf.Variable it does not (Keras 2 did).",
            phase="model",
            confidence=0.98,
            suggestions=_HOW,
            evidence={"is_certain": True, "variables": [name for _, name, _ in held[:20]]},
        ).at(line_of(owner, name))
    ]


def partly_tracked(facts: Facts) -> list[Diagnosis]:
    """Find weights that the answers depend on and that are never trained, beside others that are.

    Args:
        facts: What is known of the training.
    """
    import keras

    model = facts.model
    if type(model).train_step is not keras.Model.train_step or not model.trainable_variables:
        return []  # an own step may well train them
    held = [one for one in untracked(model) if _looks_like_weights(one[2])]
    held = [one for one in held if not _is_assigned(*one[:2]) and _is_to_be_trained(model, *one)]
    held = [one for one, counts in zip(held, _count(facts, held), strict=True) if counts]
    if not held:
        return []
    owner, name, _ = held[0]
    drawn = "random " if _RANDOM.search(_text_of(owner, name)) else ""
    return [
        Diagnosis(
            symptom="variables-not-tracked",
            cause=f"Keras does not track {_shown(held)}, on which the answers depend: they keep "
            f"their {drawn}initial values, and only the other weights are trained. Keras 3 knows "
            "what add_weight makes, keras.Variable and layers; a tf.Variable it does not (Keras 2 "
            "did).",
            phase="model",
            confidence=0.96,
            suggestions=(*_HOW, "where it is meant to stay: tf.Variable(…, trainable=False)"),
            evidence={"is_certain": True, "variables": [name for _, name, _ in held[:20]]},
        ).at(line_of(owner, name))
    ]


def _looks_like_weights(variable: Any) -> bool:
    if variable.shape.rank is None or variable.shape.rank < MIN_RANK:
        return False
    values = variable.numpy()
    return bool(np.ptp(values) > 0 and (values != np.rint(values)).any())


def _is_to_be_trained(model: Any, owner: Any, name: str, variable: Any) -> bool:
    """Tell whether values are surely meant to be trained: tables and random features are not.

    They are drawn at random and a bias stands beside them, or they are the only weights of their
    layer and called so; or the program says it.
    """
    text = _text_of(owner, name)
    if "trainable=True" in text:
        return True
    if (
        not _RANDOM.search(text)
        or _READ.search(text)
        or _FIXED.search(type(owner).__name__)
        or _has_waves(owner)
    ):
        return False
    beside = [one for holder, _, one in untracked(model) if holder is owner and one is not variable]
    if any(_is_bias(one, variable) for one in beside):
        return True
    return bool(_TRAINED.fullmatch(name)) and not getattr(owner, "trainable_weights", ())


def _is_bias(candidate: Any, weights: Any) -> bool:
    is_row = candidate.shape.rank and candidate.shape.num_elements() == weights.shape[-1]
    return bool(is_row and not np.any(candidate.numpy()))


def _text_of(owner: Any, name: str) -> str:
    """Return what a class gives an attribute for a value, and the local names in that.

    Empty where some of those are filled afterwards.
    """
    kind = _class_of(owner)
    if kind is None:
        return ""
    given = [
        (target, node.value)
        for node in ast.walk(kind[1])
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None
        for target in targets_of(node)
    ]
    values = [value for target, value in given if getattr(target, "attr", "") == name]
    used = {one.id for value in values for one in ast.walk(value) if isinstance(one, ast.Name)}
    if any(isinstance(one, ast.Subscript) and ast.unparse(one.value) in used for one, _ in given):
        return ""
    values += [value for target, value in given if getattr(target, "id", "") in used]
    return " ".join(map(ast.unparse, values))


def _has_waves(owner: Any) -> bool:
    """Tell whether a class takes a sine or cosine: of random features, then."""
    kind = _class_of(owner)
    return kind is not None and any(
        isinstance(node, ast.Attribute) and node.attr in ("sin", "cos")
        for node in ast.walk(kind[1])
    )


def _count(facts: Facts, held: list[tuple[Any, str, Any]]) -> list[bool]:
    """Tell of each variable whether the answers depend on it."""
    import tensorflow as tf

    variables = [variable for _, _, variable in held]
    if not variables:
        return []
    with unchanged(facts.model), tf.GradientTape() as tape:
        outputs = tf.nest.flatten(facts.model(pick_rows(facts.x, 16), training=False))
        total = sum(tf.reduce_sum(tf.cast(one, tf.float32) ** 2) for one in outputs)
    gradients = tape.gradient(total, variables)
    return [one is not None and bool(np.any(tf.convert_to_tensor(one))) for one in gradients]


def _shown(held: list[tuple[Any, str, Any]]) -> str:
    owner, name, _ = held[0]
    more = f" and {len(held) - 1} more" if len(held) > 1 else ""
    return f"the tf.Variable {type(owner).__name__}.{name}{more}"


def line_of(owner: Any, name: str) -> CallSite | None:
    """Return the line on which a class gives an attribute its value; None where it is another's.

    Args:
        owner: An object of the class.
        name: Name of the attribute.
    """
    kind = _class_of(owner)
    if kind is None:
        return None
    lines = [
        node.lineno
        for node in ast.walk(kind[1])
        if isinstance(node, ast.Assign | ast.AnnAssign)
        and any(isinstance(one, ast.Attribute) and one.attr == name for one in targets_of(node))
    ]
    return CallSite(kind[0], min(lines, default=kind[1].lineno))


def _is_assigned(owner: Any, name: str) -> bool:
    """Tell whether a program gives a variable other values itself: moving averages, a codebook."""
    kind = _class_of(owner)
    if kind is None:
        return True  # a library's: it knows what it does
    tree = tree_of(kind[0])
    return any(
        isinstance(node, ast.Attribute)
        and node.attr.startswith("assign")
        and isinstance(node.value, ast.Attribute)
        and node.value.attr == name
        for node in (ast.walk(tree) if tree is not None else ())
    )


def _class_of(owner: Any) -> tuple[str, ast.ClassDef] | None:
    for kind in type(owner).__mro__:
        try:
            file = inspect.getsourcefile(kind) or ""
        except TypeError:  # a built-in
            continue
        tree = tree_of(file) if is_users(file) else None
        for node in ast.walk(tree) if tree is not None else ():
            if isinstance(node, ast.ClassDef) and node.name == kind.__name__:
                return file, node
    return None
