"""Mistakes in losses, targets and test rows that names in a program's text show.

Names are no proof, so these are asked only where a training did not come to much, and only of
what reads in one way: a loss of log-probabilities times returns, a hinge of distances, a list of
targets named as the model's outputs are, a scaler fitted to what is called a test set.
"""

import ast
import re
from collections.abc import Iterator

from headstart.debug.callsites import CallSite, callee
from headstart.debug.diagnosis import Diagnosis
from headstart.debug.source.reached import functions_around

_MEANS = ("reduce_mean", "reduce_sum", "mean", "sum")
_LOG_PROBABILITY = re.compile(r"^(?:\w+_)?log_?(?:p|prob|probs|pi)\w*$|^log_?(?:p|prob|pi)\w*$")
_CHOOSE = ("gather", "gather_nd", "reduce_sum", "sum", "squeeze")
_RETURN = re.compile(r"adv|return|reward|discount|^g(?:ae|t|s)?$|^ret$|^td$", re.IGNORECASE)
_FITTED = re.compile(r"scaler|encoder|vectorizer|imputer|pca|normalizer|discretizer|transformer",
                     re.IGNORECASE)  # fmt: skip
_TRAIN, _TEST = re.compile(r"(?:^|_)(?:tr|train)"), re.compile(r"(?:^|_)(?:te|test|val|valid)")
_HINGES = ("maximum", "relu")
_NEAR, _FAR = re.compile(r"pos|\bap\b|_ap\b|d_ap"), re.compile(r"neg|\ban\b|_an\b|d_an")
_DISTANCE = re.compile(r"square|norm|abs\(|\*\* ?2|dist|euclid|subtract")
_SIMILARITY = re.compile(r"cos|sim|dot|matmul|einsum|logit|score|softmax")


def misread(file: str, tree: ast.Module) -> Iterator[tuple[ast.Call, Diagnosis]]:
    """Find them in one file.

    Args:
        file: Path of the file.
        tree: Its syntax tree.

    Yields:
        The call that is wrong, and what to say of it.
    """
    scopes: dict[ast.AST | None, list[ast.AST]] = {}
    for node, function in functions_around(tree).items():
        scopes.setdefault(function, []).append(node)
    for nodes in scopes.values():
        values = _values(nodes)
        for call in _climbing_policies(nodes, values, tree):
            yield call, _of_policy(CallSite(file, call.lineno))
        for node in nodes:
            if isinstance(node, ast.Call) and _pulls_apart(node, values):
                yield node, _of_triplets(CallSite(file, node.lineno))
    for call, outputs, given in _exchanged_targets(tree):
        yield call, _of_targets(CallSite(file, call.lineno), outputs, given)


def _values(nodes: list[ast.AST]) -> dict[str, list[ast.expr]]:
    """Return what each name of a function is given."""
    values: dict[str, list[ast.expr]] = {}
    for node in nodes:
        for target in node.targets if isinstance(node, ast.Assign) else ():
            if isinstance(target, ast.Name) and isinstance(node, ast.Assign):
                values.setdefault(target.id, []).append(node.value)
    return values


def _name_of(node: ast.expr) -> str:
    if isinstance(node, ast.Call):
        return callee(node)
    while isinstance(node, ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")


def _climbing_policies(
    nodes: list[ast.AST], values: dict[str, list[ast.expr]], tree: ast.Module
) -> Iterator[ast.Call]:
    """Find losses that are log-probabilities times returns, as they are."""
    for node in nodes:
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
            continue
        name = node.targets[0].id
        for term, sign in _terms(node.value, 1) if "loss" in name else ():
            if sign != 1 or not isinstance(term, ast.Call) or callee(term) not in _MEANS:
                continue
            product = term.args[0] if term.args else None
            if not isinstance(product, ast.BinOp) or not isinstance(product.op, ast.Mult):
                continue
            factors = [_name_of(one) for one in (product.left, product.right)]
            made = [one for factor in factors for one in values.get(factor, ())]
            is_policy = any(_is_log_probability(one, values) for one in factors) and any(
                map(_RETURN.search, factors)
            )
            if is_policy and not any(map(_has_sign, made)) and not _is_turned(name, tree):
                yield term


def _is_log_probability(name: str, values: dict[str, list[ast.expr]]) -> bool:
    """Tell whether a name stands for log-probabilities, or for those of the actions taken."""
    if _LOG_PROBABILITY.match(name):
        return True
    return any(
        isinstance(value, ast.Call)
        and callee(value) in _CHOOSE
        and any(
            _LOG_PROBABILITY.match(one.id) for one in ast.walk(value) if isinstance(one, ast.Name)
        )
        for value in values.get(name, ())
    )


def _has_sign(value: ast.expr) -> bool:
    """Tell whether something is turned round where it is made: a cross-entropy is, by its name."""
    return any(
        (isinstance(one, ast.UnaryOp) and isinstance(one.op, ast.USub))
        or (isinstance(one, ast.Call) and "cross" in callee(one))
        or (isinstance(one, ast.Name | ast.Attribute) and "cross" in _name_of(one))
        for one in ast.walk(value)
    )


def _is_turned(name: str, tree: ast.Module) -> bool:
    """Tell whether a name is used with a minus, or taken from something, anywhere."""
    for node in ast.walk(tree):
        is_minus = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub)
        is_taken = isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub)
        turned = node.right if is_taken else node if is_minus else None  # type: ignore[attr-defined]
        if turned is not None and name in {getattr(one, "id", "") for one in ast.walk(turned)}:
            return True
    return "assign_add" in ast.dump(tree)  # climbed by hand


def _pulls_apart(call: ast.Call, values: dict[str, list[ast.expr]]) -> bool:
    """Tell whether a hinge grows with the distance of what is unlike, and falls with the other."""
    if callee(call) not in _HINGES or not call.args:
        return False
    terms = [one for argument in call.args for one in _terms(argument, 1)]
    near = [(node, sign) for node, sign in terms if _NEAR.search(_name_of(node))]
    far = [(node, sign) for node, sign in terms if _FAR.search(_name_of(node))]
    if len(near) != 1 or len(far) != 1 or (near[0][1], far[0][1]) != (-1, 1):
        return False
    return all(_is_distance(node, values) for node, _ in (*near, *far))


def _terms(node: ast.expr, sign: int) -> Iterator[tuple[ast.expr, int]]:
    """Yield what a sum is made of, each with its sign."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
        yield from _terms(node.left, sign)
        yield from _terms(node.right, sign if isinstance(node.op, ast.Add) else -sign)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield from _terms(node.operand, -sign)
    else:
        yield node, sign


def _is_distance(node: ast.expr, values: dict[str, list[ast.expr]]) -> bool:
    name = _name_of(node)
    texts = [name, *(ast.unparse(value) for value in values.get(name, ()))]
    return any(map(_DISTANCE.search, texts)) and not any(map(_SIMILARITY.search, texts))


def _exchanged_targets(tree: ast.Module) -> Iterator[tuple[ast.Call, list[str], list[str]]]:
    """Find lists of targets that are named as the outputs are, but in another order."""
    named, outputs = dict[str, str](), list[str]()
    for node in ast.walk(tree):
        value = node.value if isinstance(node, ast.Assign) else None
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Call):
            told = next((one.value for one in value.func.keywords if one.arg == "name"), None)
            for target in node.targets if isinstance(node, ast.Assign) else ():
                if isinstance(target, ast.Name) and isinstance(told, ast.Constant):
                    named[target.id] = str(told.value)
    models = [node for node in ast.walk(tree)
              if isinstance(node, ast.Call) and callee(node) == "Model"]  # fmt: skip
    for model in models:
        listed = _listed(model, 1, "outputs")
        if len(listed) > 1 and all(_name_of(one) in named for one in listed):
            outputs = [named[_name_of(one)] for one in listed]
    if len(models) != 1 or not outputs:
        return
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or callee(node) not in ("fit", "evaluate"):
            continue
        given = [_name_of(one) for one in _listed(node, 1, "y")]
        meant = [[out for out in outputs if _says(name, out)] for name in given]
        if len(given) == len(outputs) and all(len(one) == 1 for one in meant):
            order = [one[0] for one in meant]
            if order != outputs and sorted(order) == sorted(outputs):
                yield node, outputs, given


def refitted(file: str, tree: ast.Module) -> Iterator[tuple[ast.Call, Diagnosis]]:
    """Find scalers, encoders and the like that are fitted once more, to the test rows.

    Args:
        file: Path of the file.
        tree: Its syntax tree.

    Yields:
        The call, and what to say of it.
    """
    fitted: dict[str, dict[str, ast.Call]] = {}
    values = _values(list(ast.walk(tree)))
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or callee(node) != "fit_transform" or not node.args:
            continue
        owner = node.func.value if isinstance(node.func, ast.Attribute) else None
        text = "" if owner is None else ast.unparse(owner)
        rows = _name_of(node.args[0]).lower()
        kind = "test" if _TEST.search(rows) else "train" if _TRAIN.search(rows) else ""
        texts = [text, *(ast.unparse(value) for value in values.get(text, ()))]
        if kind and any(map(_FITTED.search, texts)):
            fitted.setdefault(text, {}).setdefault(kind, node)
    for text, calls in fitted.items():
        if len(calls) > 1:
            yield calls["test"], _of_refit(CallSite(file, calls["test"].lineno), text)


def _listed(call: ast.Call, place: int, name: str) -> list[ast.expr]:
    value = next((one.value for one in call.keywords if one.arg == name), None)
    if value is None and len(call.args) > place:
        value = call.args[place]
    return list(value.elts) if isinstance(value, ast.List | ast.Tuple) else []


def _says(name: str, output: str) -> bool:
    """Tell whether the name of an array has all words of an output's name."""
    return set(output.lower().split("_")) <= set(name.lower().split("_"))


def _of_refit(site: CallSite, scaler: str) -> Diagnosis:
    return Diagnosis(
        symptom="fitted-to-test-rows",
        cause=f"{scaler}.fit_transform is called for the training rows and once more for the test "
        "rows: these are scaled (or encoded) by their own statistics, unlike what the model was "
        "trained on.",
        phase="data",
        confidence=0.93,
        suggestions=(f"{scaler}.transform(…) for the test rows: it uses what the training fitted",),
    ).at(site)


def _of_policy(site: CallSite) -> Diagnosis:
    return Diagnosis(
        symptom="wrong-sign",
        cause="The policy's loss is log-probabilities times returns without a minus sign: to "
        "minimise it makes good actions rarer.",
        phase="loss",
        confidence=0.93,
        suggestions=("minimise the negative: loss = -tf.reduce_mean(log_prob * advantage)",),
    ).at(site)


def _of_triplets(site: CallSite) -> Diagnosis:
    return Diagnosis(
        symptom="wrong-sign",
        cause="The hinge of the triplet loss has the two distances swapped: it grows with the "
        "distance to the negative, so that it pulls other classes near and pushes its own away.",
        phase="loss",
        confidence=0.94,
        suggestions=("tf.maximum(positive_distance - negative_distance + margin, 0.0)",),
    ).at(site)


def _of_targets(site: CallSite, outputs: list[str], given: list[str]) -> Diagnosis:
    return Diagnosis(
        symptom="targets-in-another-order",
        cause=f"The list of targets is in another order than the model's outputs: {given} is given "
        f"for the outputs {outputs}. Each output learns the target of another.",
        phase="data",
        confidence=0.95,
        suggestions=(
            "give targets by name: {" + ", ".join(f"{one!r}: …" for one in outputs) + "}",
        ),
    ).at(site)
