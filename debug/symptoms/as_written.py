"""Mistakes that a program's text shows by itself: they are told of programs that train.

A result that nothing takes is a step of the preparation that never happened; a reshape that moves
the rows from the first axis to the last one mixes the values of all rows.
"""

import ast
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from headstart.debug.callsites import CallSite, callee, is_users, tree_of
from headstart.debug.diagnosis import Diagnosis
from headstart.debug.source.syntax import targets_of

MAX_TOLD = 5
MAX_FILES = 200
_MAKE_TENSORS = frozenset({
    "abs", "add", "cast", "clip_by_global_norm", "clip_by_norm", "clip_by_value", "concat",
    "divide", "exp", "expand_dims", "gather", "l2_normalize", "log", "maximum", "minimum",
    "multiply", "one_hot", "pad", "relu", "reshape", "reverse", "round", "sigmoid", "softmax",
    "sqrt", "square", "squeeze", "stack", "stop_gradient", "subtract", "tanh", "tile",
    "transpose", "where",
})  # fmt: skip
"""Functions of TensorFlow's (also of ``tf.math``, ``tf.nn``) that only return. An op of a graph
that is given a name is fetched by that."""
_MAKE_ARRAYS = frozenset({
    "abs", "append", "argsort", "clip", "concatenate", "delete", "divide", "exp", "expand_dims",
    "flip", "hstack", "log", "log1p", "multiply", "nan_to_num", "permutation", "reshape",
    "roll", "sort", "sqrt", "squeeze", "stack", "swapaxes", "transpose", "vstack", "where",
})  # fmt: skip
"""Functions of numpy's that only return."""
_INPUTS = {"abs": 1, "exp": 1, "log": 1, "log1p": 1, "sqrt": 1, "divide": 2, "multiply": 2,
           "clip": 3}  # fmt: skip
"""How many arguments of some of them are inputs: the next is where the result goes."""
_MAKE_DATASETS = frozenset({
    "apply", "batch", "cache", "concatenate", "filter", "interleave", "map", "padded_batch",
    "prefetch", "repeat", "shard", "shuffle", "skip", "take", "unbatch", "with_options",
})  # fmt: skip
"""Methods of ``tf.data.Dataset``, which is never changed itself."""
_MAKE_FRAMES = frozenset({
    "astype", "dropna", "fillna", "reset_index", "set_index", "sort_values", "to_categorical",
})  # fmt: skip
"""Methods and functions of these names only return, whatever has them, but for ``inplace=True``."""
_DATASETS = frozenset({
    "Dataset", "FixedLengthRecordDataset", "TFRecordDataset", "TextLineDataset",
    "from_generator", "from_tensor_slices", "from_tensors", "image_dataset_from_directory",
    "list_files", "make_csv_dataset", "text_dataset_from_directory",
})  # fmt: skip
"""What makes a data set."""
_KEPT = ("inplace", "out", "copy", "name")


def as_written(files: Iterable[str], others: Sequence[Diagnosis], is_good: bool) -> list[Diagnosis]:
    """Look through the text of a program.

    Args:
        files: Its source files.
        others: What else was found of it.
        is_good: Whether a training of it is known to have come to something.

    Returns:
        The findings; what was thrown away is advice where all went well without it.
    """
    found = []
    goes_well = is_good and all(one.severity in ("warning", "advice") for one in others)
    for file in sorted(files):
        tree = tree_of(file)
        if tree is not None:
            found += [_thrown_away(file, call, goes_well) for call in thrown_away(tree)]
            found += [_scrambled(file, call) for call in scrambling_reshapes(tree)]
    return found[:MAX_TOLD]


def files_of_program(site: CallSite | None) -> frozenset[str]:
    """Return the source files of the program that runs here.

    Args:
        site: A line of it, where one is known.

    Returns:
        The script and the modules beside it, or below the working folder, that are loaded: what
        is installed from elsewhere is a library, however it was installed.
    """
    places = Path(sys.argv[0]).resolve().parent, Path.cwd()
    homes = tuple(f"{place}{os.sep}" for place in places)
    loaded = [getattr(module, "__file__", None) or "" for module in list(sys.modules.values())]
    own = [file for file in loaded if is_users(file)]
    beside = [file for file in own if str(Path(file).resolve()).startswith(homes)]
    files = [*beside[:MAX_FILES], sys.argv[0], "" if site is None else site.file]
    return frozenset(file for file in files if file.endswith(".py") and is_users(file))


def thrown_away(tree: ast.Module) -> Iterator[ast.Call]:
    """Find calls that do nothing but return what is not taken.

    Args:
        tree: The syntax tree of a program.

    Yields:
        Each such call.
    """
    datasets = _names_of_datasets(tree)
    for node in ast.walk(tree):
        call = node.value if isinstance(node, ast.Expr) else None
        if not isinstance(call, ast.Call) or any(one.arg in _KEPT for one in call.keywords):
            continue
        name, root = callee(call), _root(call.func)
        is_dotted = isinstance(call.func, ast.Attribute)
        if (
            (is_dotted and root in ("tf", "tensorflow") and name in _MAKE_TENSORS)
            or (is_dotted and root in ("np", "numpy") and name in _MAKE_ARRAYS
                and len(call.args) <= _INPUTS.get(name, len(call.args)))
            or (is_dotted and root in datasets and name in _MAKE_DATASETS)
            or name in _MAKE_FRAMES
        ):  # fmt: skip
            yield call


def _root(function: ast.expr) -> str:
    """Return the name with which a callee begins: ``tf`` of ``tf.nn.relu``."""
    while isinstance(function, ast.Attribute | ast.Call):
        function = function.value if isinstance(function, ast.Attribute) else function.func
    return function.id if isinstance(function, ast.Name) else ""


def _names_of_datasets(tree: ast.Module) -> set[str]:
    """Return names that hold a data set: made as one, or replaced by what its method returns."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Assign):
            continue
        targets = [one.id for one in targets_of(node) if isinstance(one, ast.Name)]
        calls = [one for one in ast.walk(node.value) if isinstance(one, ast.Call)]
        called = {callee(call) for call in calls}
        is_replaced = called <= _MAKE_DATASETS and any(_root(node.value) == one for one in targets)
        if called & _DATASETS or (called and is_replaced):
            names.update(targets)
    return names


def _thrown_away(file: str, call: ast.Call, goes_well: bool) -> Diagnosis:
    name, text = callee(call), ast.unparse(call.func)
    taker = ast.unparse(call.func.value) if isinstance(call.func, ast.Attribute) else ""
    is_function = taker.split(".")[0] in ("tf", "tensorflow", "np", "numpy", "")
    if is_function:
        taker = ast.unparse(call.args[0]) if call.args else "result"
    return Diagnosis(
        symptom="result-thrown-away",
        cause=f"The result of {text} is thrown away: {name} changes nothing in place but returns "
        f"something new, which no name takes. {taker} is as it was before (not "
        f"{_done(name)}).",
        phase="data",
        severity="advice" if goes_well else "error",
        confidence=0.9,
        suggestions=(f"keep the result: {taker} = {ast.unparse(call)}",),
    ).at(CallSite(file, call.lineno))


def _done(name: str) -> str:
    words = {
        "shuffle": "shuffled", "permutation": "shuffled", "batch": "batched", "map": "mapped",
        "repeat": "repeated", "clip": "clipped", "clip_by_value": "clipped (log(0) and the like "
        "are still possible)", "clip_by_norm": "clipped", "to_categorical": "one-hot encoded",
        "dropna": "rid of missing values", "fillna": "rid of missing values",
    }  # fmt: skip
    return words.get(name, "changed")


def scrambling_reshapes(tree: ast.Module) -> Iterator[ast.Call]:
    """Find reshapes that put the rows last: ``x.reshape(x.shape[1] * x.shape[2], x.shape[0])``.

    Args:
        tree: The syntax tree of a program.

    Yields:
        Each such call. What has but one column either way is only laid down.
    """
    text = ast.unparse(tree)
    named = {
        target.id: ast.unparse(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or callee(node) != "reshape":
            continue
        function, sizes = node.func, list(node.args)
        taken = function.value if isinstance(function, ast.Attribute) else None
        if _root(function) in ("np", "numpy", "tf", "tensorflow"):
            taken, sizes = (sizes[0], sizes[1:]) if sizes else (None, [])
        if len(sizes) == 1 and isinstance(sizes[0], ast.Tuple | ast.List):
            sizes = list(sizes[0].elts)
        if taken is None or len(sizes) < 2 or any(one.arg == "order" for one in node.keywords):
            continue
        whole = ast.unparse(taken)
        rows = [f"{whole}.shape[0]", f"len({whole})"]
        others = [ast.unparse(one) for one in sizes[:-1]]
        rows += [name for name, value in named.items() if value in rows]
        is_wide = any(f"{whole}.shape[{axis}]" in one for one in others for axis in (1, 2, 3))
        # As a list of numbers that are not 1 it is wide where the text knows of a third axis.
        is_wide = is_wide or (others != ["1"] and f"{whole}.shape[2]" in text)
        if ast.unparse(sizes[-1]) in rows and is_wide:
            yield node


def _scrambled(file: str, call: ast.Call) -> Diagnosis:
    function = call.func
    whole = ast.unparse(function.value if isinstance(function, ast.Attribute) else call.args[0])
    if whole in ("np", "numpy", "tf", "tensorflow") and call.args:
        whole = ast.unparse(call.args[0])
    return Diagnosis(
        symptom="reshape-for-transpose",
        cause=f"The rows of {whole} are put last by reshape, which keeps the order of the values "
        "in memory and does not transpose: each column mixes values of many rows (examples), so "
        "the labels no longer belong to them.",
        phase="data",
        confidence=0.95,
        suggestions=(f"flatten first, then transpose: {whole}.reshape({whole}.shape[0], -1).T",),
    ).at(CallSite(file, call.lineno))
