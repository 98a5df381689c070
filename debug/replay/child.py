"""Takes the steps of a crash bundle again: ``python child.py BUNDLE RESULT.json``.

Run as a script under the debugger (``headstart.debug.running.ladder``), once for each rung of its
ladder; only the first run, which has no instrumentation, says whether the replay was exact.
"""

import ast
import contextlib
import hashlib
import json
import math
import random
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from headstart.debug.replay.bundle import Bundle, read_bundle
from headstart.debug.replay.recorder import recorded_variables
from headstart.errors import RecordError

_WITH_EFFECT = {
    "fit", "evaluate", "predict", "train_on_batch", "load_data", "load_model", "load_weights",
    "save", "system", "run", "get_file", "urlopen", "image_dataset_from_directory",
}  # fmt: skip


def main(folder: Path, result_file: Path) -> None:
    """Replay a bundle and write how close it came.

    Args:
        folder: Folder of the bundle.
        result_file: Where the result goes; left alone where it is there already.
    """
    bundle = read_bundle(folder)
    model = load_model(bundle)
    result = _Result(bundle, None if result_file.exists() else result_file)
    start = _StartHere(bundle)
    model.run_eagerly = bool(bundle.facts["run_eagerly"])
    # One by one, so that the step is found and not just the call of several that holds it; what
    # Keras logs after each step is the same mean.
    model.steps_per_execution = 1
    try:
        model.fit(
            (batch for batch in bundle.batches),
            steps_per_epoch=len(bundle.batches),
            callbacks=[start, result],
            verbose=0,
        )
    except Exception as error:
        result.write(type(error).__name__)
        raise


def load_model(bundle: Bundle) -> Any:
    """Load the bundle's model, with the user's own classes from its sources.

    Returns:
        The compiled model.
    """
    known: dict[str, Any] = {}
    for entry in bundle.facts["sources"]:
        known.update(_definitions(bundle, entry))
    with keras.utils.custom_object_scope(known):
        # The bundle's sources run anyway, so its lambdas are no greater risk.
        return keras.models.load_model(bundle.folder / "model.keras", safe_mode=False)


def _definitions(bundle: Bundle, entry: dict[str, str]) -> dict[str, Any]:
    """Run only what a module defines: imports, classes, functions and what these refer to."""
    copy, original = bundle.folder / "sources" / entry["name"], Path(entry["original"])
    same = original.is_file() and _digest(original) == entry["sha256"]
    file = original.resolve() if same else copy.resolve()
    module = types.ModuleType(entry["module"])
    module.__file__ = str(file)
    if entry["module"] != "__main__":
        sys.modules[entry["module"]] = module
    for statement in defining_statements(ast.parse(file.read_text(encoding="utf-8"))):
        code = compile(ast.Module([statement], []), str(file), "exec")
        with contextlib.suppress(Exception):  # what needs the user's data is not needed here
            exec(code, module.__dict__)
    return {
        name: value
        for name, value in vars(module).items()
        if getattr(value, "__module__", None) == entry["module"] and callable(value)
    }


def defining_statements(tree: ast.Module) -> list[ast.stmt]:
    """Return the statements of a script that its classes and functions need, and no others.

    A script trains at its top level (``history = train()``): that must not happen again here. So
    an assignment counts only where a class or function refers to its name, and never where it
    calls, by any of the script's own functions, what trains, loads, saves or runs a flow.

    Returns:
        Imports, definitions, and assignments of that kind, in order.
    """
    made = [node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    needed = {node.id for part in made for node in ast.walk(part) if isinstance(node, ast.Name)}
    barred = set(_WITH_EFFECT)
    functions = [node for node in made if isinstance(node, ast.FunctionDef)]
    for _ in functions:  # what calls a function that trains, trains too
        barred |= {f.name for f in functions if _called(f) & barred or _is_flow(f)}
    return [
        node
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom | ast.ClassDef | ast.FunctionDef)
        or (
            isinstance(node, ast.Assign | ast.AnnAssign)
            and _targets(node) & needed
            and not _called(node) & barred
        )
    ]


def _called(tree: ast.AST) -> set[str]:
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return {getattr(call, "attr", getattr(call, "id", "")) for call in calls}


def _targets(node: ast.Assign | ast.AnnAssign) -> set[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return {
        name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)
    }


def _is_flow(function: ast.FunctionDef) -> bool:
    names = {
        getattr(node, "attr", getattr(node, "id", ""))
        for decorator in function.decorator_list
        for node in ast.walk(decorator)
    }
    return bool(names & {"flow", "task"})


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


class _StartHere(keras.callbacks.Callback):  # type: ignore[misc]
    """Puts the recorded state in place right before the first step."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__()
        self.bundle = bundle

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Restore everything before batch 0."""
        if batch:
            return
        if not self.model.optimizer.built:
            self.model.optimizer.build(self.model.trainable_variables)
        # Paths may hold names that Keras numbers anew in each process, so position decides. Metrics
        # come last and make some of their variables only in their first step, with nothing in them.
        variables = recorded_variables(self.model)
        recorded = zip(self.bundle.facts["state"], self.bundle.values, strict=True)
        for variable, (entry, value) in zip(variables, recorded, strict=False):
            if list(variable.shape) != entry["shape"]:
                raise RecordError(
                    "the loaded model does not have the same variables as the recorded one",
                    f"{variable.path} of shape {tuple(variable.shape)} for {entry}",
                    "make sure the model's get_config returns every argument of __init__",
                )
            variable.assign(value)
        _restore_random(self.bundle.facts["random"])


class _Result(keras.callbacks.Callback):  # type: ignore[misc]
    """Compares the logged losses with the recorded ones, bit by bit."""

    def __init__(self, bundle: Bundle, file: Path | None) -> None:
        super().__init__()
        self.bundle = bundle
        self.file = file
        self.different: list[int] = []
        self.steps = 0

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Compare, and write at each step: the next may end the process."""
        step = self.bundle.first_step + batch
        recorded = self.bundle.facts["losses"].get(str(step))
        loss = float((logs or {}).get("loss", 0.0))
        if recorded is not None and not _same(loss, float.fromhex(recorded)):
            self.different.append(step)
        self.steps += 1
        self.write("NonFiniteLossError" if not math.isfinite(loss) else "")

    def write(self, failure: str) -> None:
        """Write the result so far.

        Args:
            failure: Name of the failure's exception, empty where there was none yet.
        """
        if self.file is None:
            return
        expected = self.bundle.facts["error_type"]
        is_exact = not self.different and failure == expected
        self.file.write_text(
            json.dumps({
                "is_exact": is_exact,
                "failure": failure,
                "expected": expected,
                "steps": self.steps,
                "different_steps": self.different,
            }),
            encoding="utf-8",
        )  # fmt: skip


def _same(loss: float, recorded: float) -> bool:
    return loss == recorded or not (math.isfinite(loss) or math.isfinite(recorded))


def _restore_random(state: dict[str, Any]) -> None:
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    numpy_state = {**state["numpy"], "state": dict(_as_arrays(state["numpy"]["state"]))}
    np.random.set_state(numpy_state)  # noqa: NPY002
    if state["tensorflow"] is not None:
        tf.random.get_global_generator().reset(np.array(state["tensorflow"], np.int64))


def _as_arrays(state: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in state.items():
        yield key, np.array(value, np.uint32) if isinstance(value, list) else value


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
