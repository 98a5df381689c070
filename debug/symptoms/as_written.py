"""Mistakes that a program's text shows by itself: they are told of programs that train.

A result that nothing takes is a step of the preparation that never happened; a reshape that moves
the rows from the first axis to the last one mixes the values of all rows.
"""

import ast
import functools
import linecache
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from headstart.debug.callsites import CallSite, callee, is_users, tree_of
from headstart.debug.diagnosis import Diagnosis
from headstart.debug.source.reached import functions_around, reached
from headstart.debug.source.syntax import targets_of
from headstart.debug.symptoms.as_named import misread, refitted

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
_INPUTS = {"abs": 1, "exp": 1, "log": 1, "log1p": 1, "nan_to_num": 1, "sqrt": 1,
           "concatenate": 2, "divide": 2, "multiply": 2, "stack": 2, "clip": 3}  # fmt: skip
"""How many arguments of some of them are inputs: the next is where the result goes, or whether
there is a new one."""
_MAKE_DATASETS = frozenset({
    "batch", "cache", "concatenate", "filter", "interleave", "map", "padded_batch",
    "prefetch", "repeat", "shard", "shuffle", "skip", "take", "unbatch", "with_options",
})  # fmt: skip
"""Methods of ``tf.data.Dataset``, which is never changed itself."""
_MAKE_FRAMES = frozenset({
    "astype", "dropna", "fillna", "reset_index", "set_index", "sort_values",
})  # fmt: skip
"""Methods of pandas's that only return, but for ``inplace=True``."""
_ONLY_OF_DATASETS = frozenset({
    "batch", "cache", "interleave", "padded_batch", "prefetch", "unbatch", "with_options",
})  # fmt: skip
"""A name that is replaced by what these return holds a ``tf.data.Dataset``."""
_DATASETS = frozenset({
    "image_dataset_from_directory", "make_csv_dataset", "text_dataset_from_directory",
})  # fmt: skip
"""What makes a data set, beside ``tf.data``."""
_TF, _NUMPY, _PANDAS = ("tf", "tensorflow"), ("np", "numpy"), ("pd", "pandas")
_CELL = "headstart_cell_"
"""Begins the name of the file that a cell of a notebook is run from."""
_CELL_MARKS = ("# In[", "# %%", "#%%")
"""Begin a cell in a script that a notebook was written as."""
_KEPT = ("inplace", "out", "copy", "name")


def as_written(files: Iterable[str], others: Sequence[Diagnosis], is_good: bool) -> list[Diagnosis]:
    """Look through the text of a program.

    Args:
        files: Its source files.
        others: What else was found of it.
        is_good: Whether a training of it is known to have come to something.

    Returns:
        The findings; where all went well, what was thrown away is advice and the rest is not told.
    """
    found = []
    goes_well = is_good and all(one.severity in ("warning", "advice") for one in others)
    trees = {file: tree for file in sorted(files) if (tree := tree_of(file)) is not None}
    run = reached(trees, sys.argv[0])
    for file, tree in trees.items():
        around = functions_around(tree)
        shown = _displayed(file, tree)

        def may_run(call: ast.Call, around: dict[ast.AST, ast.AST | None] = around) -> bool:
            function = around[call]
            while isinstance(function, ast.Lambda):
                function = around[function]
            return function is None or function in run

        thrown = [call for call in thrown_away(tree) if call.lineno not in shown]
        found += [_thrown_away(file, call, goes_well) for call in filter(may_run, thrown)]
        scrambled = () if goes_well else filter(may_run, scrambling_reshapes(tree))
        found += [_scrambled(file, call) for call in scrambled]
        wrong = () if goes_well else misread(file, tree)
        found += [one for call, one in wrong if may_run(call)]
        # However well the training went: it is the test that is wrong.
        found += [replace(one, severity="warning" if goes_well else one.severity)
                  for call, one in refitted(file, tree) if may_run(call)]  # fmt: skip
    return found[:MAX_TOLD]


def _displayed(file: str, tree: ast.Module) -> set[int]:
    """Return the lines of last statements of a notebook's cells: their values are shown."""
    marks = [number for number, line in enumerate(linecache.getlines(file), 1)
             if line.startswith(_CELL_MARKS)]  # fmt: skip
    if not marks and not Path(file).name.startswith(_CELL):
        return set()
    befores = [[one.lineno for one in tree.body if one.lineno < mark] for mark in marks]
    return {lines[-1] for lines in [*befores, [one.lineno for one in tree.body]] if lines}


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
    around, alone = functions_around(tree), _alone(tree)
    for node in ast.walk(tree):
        call = node.value if isinstance(node, ast.Expr) and node not in alone else None
        if not isinstance(call, ast.Call) or any(one.arg in _KEPT for one in call.keywords):
            continue
        if _only_returns(tree, call) or _is_of_a_known_name(tree, call, around):
            yield call


def _alone(tree: ast.Module) -> set[ast.AST]:
    """Return statements that are all that a block does: to time them, or to see them fail."""
    blocks = (ast.For, ast.While, ast.AsyncFor, ast.With, ast.AsyncWith, ast.Try)
    return {one.body[0] for one in ast.walk(tree) if isinstance(one, blocks) and len(one.body) == 1}


def _only_returns(tree: ast.Module, call: ast.Call) -> bool:
    """Tell whether a call is of a library's function that changes nothing."""
    name, path = callee(call), _path(call.func)
    root = path[0] if len(path) > 1 else ""
    if root in _TF and name in _MAKE_TENSORS:
        # The name of an op, by its place; cast's second argument is a dtype.
        texts = call.args[2 if name == "cast" else 1 :]
        return not any(isinstance(one, ast.Constant) and isinstance(one.value, str)
                       for one in texts)  # fmt: skip
    if root in _NUMPY and name in _MAKE_ARRAYS:
        return len(call.args) <= _INPUTS.get(name, len(call.args))
    if name == "to_categorical":
        known = {*_TF, "keras", "np_utils"} if root else set()
        return not known.union(_from_keras(tree)).isdisjoint(path[:1])
    if name != "astype" or not isinstance(call.func, ast.Attribute):
        return False
    return not any(isinstance(one, ast.FunctionDef) and one.name == name for one in ast.walk(tree))


def _path(function: ast.expr) -> list[str]:
    """Return the names of a callee, such as ``tf``, ``nn``, ``relu``; empty for what is called."""
    names: list[str] = []
    while isinstance(function, ast.Attribute):
        names.insert(0, function.attr)
        function = function.value
    return [function.id, *names] if isinstance(function, ast.Name) else []


def _from_keras(tree: ast.Module) -> set[str]:
    """Return the names that a program imports from Keras or TensorFlow."""
    return {
        one.asname or one.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").split(".")[0] in ("keras", "tensorflow")
        for one in node.names
    }


def _is_of_a_known_name(
    tree: ast.Module, call: ast.Call, around: dict[ast.AST, ast.AST | None]
) -> bool:
    """Tell whether a call only returns, by what the name was assigned that it is a method of."""
    steps, root = _chain(call)
    if not steps or not root:
        return False
    is_made: Callable[[ast.expr], bool]
    if set(steps) <= _MAKE_DATASETS:
        is_made, peculiar = functools.partial(_makes_dataset, tree), _ONLY_OF_DATASETS
    elif len(steps) == 1 and steps[0] in _MAKE_FRAMES:
        is_made, peculiar = _makes_frame, frozenset()
    else:
        return False
    function = around[call]
    while function is not None:  # the innermost function that gives the name a value
        bound = [one for one in ast.walk(tree) if around[one] is function and _binds(one, root)]
        if bound:
            break
        function = around[function]
    else:
        bound = [one for one in ast.walk(tree) if around[one] is None and _binds(one, root)]
    return _holds(tree, root, bound, around, is_made, peculiar)


def _chain(value: ast.expr) -> tuple[list[str], str]:
    """Return the methods of a chain of calls, the last first, and the name that it begins with."""
    steps = []
    while isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute):
        steps.append(value.func.attr)
        value = value.func.value
    return steps, value.id if isinstance(value, ast.Name) else ""


def _binds(node: ast.AST, name: str) -> bool:
    is_stored = isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id == name
    return is_stored or (isinstance(node, ast.arg) and node.arg == name)


def _holds(
    tree: ast.Module,
    name: str,
    bound: list[ast.AST],
    around: dict[ast.AST, ast.AST | None],
    is_made: Callable[[ast.expr], bool],
    peculiar: frozenset[str],
) -> bool:
    """Tell whether a name, wherever it is given a value, is given what ``is_made`` knows.

    Before it is replaced by what a peculiar method of its own returns, it may be given anything
    but an object of a class of the program's.
    """
    places = {id(one) for one in bound}
    values = {
        id(target): node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in targets_of(node)
        if id(target) in places
    }
    own = {one.name for one in ast.walk(tree) if isinstance(one, ast.ClassDef)}
    ordered = [values.get(id(one)) for one in sorted(bound, key=lambda one: one.lineno)]  # type: ignore[attr-defined]
    is_known = False
    for value in ordered:
        steps, root = ([], "") if value is None else _chain(value)
        is_replaced = bool(steps) and root == name
        is_same = is_replaced and (not peculiar or set(steps) <= _MAKE_DATASETS)
        if (value is not None and is_made(value)) or (is_same and peculiar & set(steps)):
            is_known = True
        elif is_known and not is_same:
            return False  # sometimes it is something else
        elif isinstance(value, ast.Call) and callee(value) in own:
            return False
    return is_known


def _makes_dataset(tree: ast.Module, value: ast.expr) -> bool:
    while isinstance(value, ast.Call):
        path = _path(value.func)
        if path:
            is_tensorflows = path[0] in (*_TF, "keras") or path[0] in _from_keras(tree)
            return is_tensorflows and ("data" in path or "Dataset" in path[:1]
                                       or path[-1] in _DATASETS)  # fmt: skip
        if not isinstance(value.func, ast.Attribute) or value.func.attr not in _MAKE_DATASETS:
            return False
        value = value.func.value
    return False


def _makes_frame(value: ast.expr) -> bool:
    while isinstance(value, ast.Call | ast.Attribute | ast.Subscript):
        value = value.func if isinstance(value, ast.Call) else value.value
    return isinstance(value, ast.Name) and value.id in _PANDAS


def _thrown_away(file: str, call: ast.Call, goes_well: bool) -> Diagnosis:
    name, text = callee(call), ast.unparse(call.func)
    taker = ast.unparse(call.func.value) if isinstance(call.func, ast.Attribute) else ""
    is_function = taker.split(".")[0] in (*_TF, *_NUMPY, "keras", "np_utils", "")
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
    scopes: dict[ast.AST | None, list[ast.AST]] = {}
    for node, function in functions_around(tree).items():
        scopes.setdefault(function, []).append(node)
    for nodes in scopes.values():
        yield from _scrambling(nodes)


def _scrambling(nodes: list[ast.AST]) -> Iterator[ast.Call]:
    """Look through the nodes of one function: elsewhere the same name may be another array."""
    shapes = {ast.unparse(one) for one in nodes if isinstance(one, ast.Subscript)}
    named = {
        target.id: ast.unparse(node.value)
        for node in nodes
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in nodes:
        if not isinstance(node, ast.Call) or callee(node) != "reshape":
            continue
        function, sizes = node.func, list(node.args)
        taken = function.value if isinstance(function, ast.Attribute) else None
        if _path(function)[:1] and _path(function)[0] in (*_TF, *_NUMPY):
            taken, sizes = (sizes[0], sizes[1:]) if sizes else (None, [])
        if len(sizes) == 1 and isinstance(sizes[0], ast.Tuple | ast.List):
            sizes = list(sizes[0].elts)
        if taken is None or len(sizes) < 2 or any(one.arg == "order" for one in node.keywords):
            continue
        whole = ast.unparse(taken)
        rows = [f"{whole}.shape[0]", f"len({whole})"]
        others = [ast.unparse(one) for one in sizes[:-1]]
        rows += [name for name, value in named.items() if value in rows]
        # Of a vector, (1, N), it is the same as to transpose: only a third axis tells.
        is_wide = others != ["1"] and f"{whole}.shape[2]" in shapes
        if ast.unparse(sizes[-1]) in rows and is_wide:
            yield node


def _scrambled(file: str, call: ast.Call) -> Diagnosis:
    function = call.func
    whole = ast.unparse(function.value if isinstance(function, ast.Attribute) else call.args[0])
    if whole in (*_TF, *_NUMPY) and call.args:
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
