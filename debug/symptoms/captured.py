"""What a tf.function read from outside when it was traced, and what has become of it since."""

import dis
import functools
import weakref
from types import CodeType, FunctionType
from typing import Any

import numpy as np

from headstart.debug.callsites import CallSite, is_users
from headstart.debug.diagnosis import Diagnosis

Scalars = dict[str, float]
Networks = dict[str, weakref.ref[Any]]

_READS_OF_GLOBALS = ("LOAD_GLOBAL", "LOAD_NAME")


class Captured:
    """What the functions of one program keep.

    Attributes:
        found: What is wrong, by what it is about.
    """

    def __init__(self) -> None:
        self.found: dict[str, Diagnosis] = {}
        self._traced: weakref.WeakKeyDictionary[Any, tuple[int, Scalars, Networks]] = (
            weakref.WeakKeyDictionary()  # a function holds its graphs, and these the models
        )

    def on_call(self, function: Any) -> None:
        """Note a finished call of a tf.function."""
        if {"number", "network"} <= self.found.keys():
            return
        try:
            count = int(function.experimental_get_tracing_count())
            python_function = function.python_function
        except Exception:  # wrapped some other way
            return
        traces, scalars, networks = self._traced.get(function, (-1, {}, {}))
        now, held = _read_by(python_function, networks)
        if traces != count:
            self._traced[function] = (count, now, held)
            return
        changed = [name for name, value in now.items() if scalars.get(name, value) != value]
        if changed and "number" not in self.found:
            name = changed[0]
            self.found["number"] = _captured(python_function, name, scalars[name], now[name])
        others = [name for name, ref in held.items() if name in networks and
                  networks[name]() is not ref()]  # fmt: skip
        if others and "network" not in self.found:
            self.found["network"] = _of_network(python_function, others[0], held[others[0]]())


def _read_by(function: Any, known: Networks) -> tuple[Scalars, Networks]:
    """Return what a function reads from outside: Python numbers, and what holds variables.

    Args:
        function: The Python function.
        known: What held variables when it was traced; that is not looked into again.
    """
    owner = _owner(function)
    function = _plain(function)
    if not isinstance(function, FunctionType) or not is_users(function.__code__.co_filename):
        return {}, {}
    names, attributes, keys = _names_of(function.__code__)
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=False)
    outside: dict[str, Any] = {
        name: function.__globals__[name] for name in names if name in function.__globals__
    }
    for name, cell in cells:
        try:
            outside[name] = cell.cell_contents
        except ValueError:  # not yet filled
            continue
    if owner is not None and function.__code__.co_argcount:
        outside[function.__code__.co_varnames[0]] = owner
    found: Scalars = {}
    networks: Networks = {}
    for name, value in outside.items():
        if _is_scalar(value):
            found[name] = value
        elif (name in known and known[name]() is value) or _holds_variables(value):
            networks[name] = weakref.ref(value)
        elif isinstance(value, dict):
            found |= {f"{name}[{key!r}]": value[key] for key in keys
                      if key in value and _is_scalar(value[key])}  # fmt: skip
        elif type(value).__module__ == "__main__":
            own = getattr(value, "__dict__", {})
            found |= {f"{name}.{key}": own[key] for key in attributes
                      if key in own and _is_scalar(own[key])}  # fmt: skip
    return found, networks


@functools.lru_cache(maxsize=64)
def _names_of(code: CodeType) -> tuple[set[str], set[str], set[Any]]:
    """Return the globals that code reads, the names of attributes, and keys it may look up."""
    names = {step.argval for step in dis.get_instructions(code) if step.opname in _READS_OF_GLOBALS}
    attributes = set(code.co_names)
    keys = {const for const in code.co_consts if isinstance(const, str | int)}
    for const in code.co_consts:
        if isinstance(const, CodeType):
            inner_names, inner_attributes, inner_keys = _names_of(const)
            names |= inner_names
            attributes |= inner_attributes
            keys |= inner_keys
    return names, attributes, keys


def _is_scalar(value: Any) -> bool:
    return isinstance(value, bool | int | float | np.floating | np.integer)


def _holds_variables(value: Any) -> bool:
    """Tell whether something is a network or an optimizer that is in use."""
    if not any(kind.__module__.startswith("keras.") for kind in type(value).__mro__):
        return False  # a property of a stranger's may do anything
    variables = getattr(value, "variables", None)
    return isinstance(variables, list | tuple) and bool(variables)


def _owner(function: Any) -> Any:
    """Return the object whose method a function is; None for others."""
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    owner: Any = getattr(function, "__self__", None)
    is_stand_in = type(owner).__name__ == "TfMethodTarget"  # tf.function binds a method to it
    return owner.target if is_stand_in else owner


def _plain(function: Any) -> Any:
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    return getattr(function, "__func__", function)


def _captured(function: Any, name: str, before: Any, now: Any) -> Diagnosis:
    function = _plain(function)
    return Diagnosis(
        symptom="python-value-captured",
        cause=f"The Python value {name!r} was {before} when tf.function traced "
        f"{function.__name__}(), and is {now} now: the graph keeps the old value as a constant, so "
        "changing it has no effect.",
        phase="model",
        confidence=0.93,
        suggestions=(
            f"keep it in a tf.Variable (and assign), or pass it as a tensor argument: "
            f"{function.__name__}(..., tf.constant({name}))",
        ),
        evidence={"name": name},
    ).at(_site_of_read(function, name))


def _of_network(function: Any, name: str, now: Any) -> Diagnosis:
    function = _plain(function)
    return Diagnosis(
        symptom="network-captured",
        cause=f"tf.function traced {function.__name__}() with the first object called {name!r}, "
        f"and the graph keeps that one: {name!r} is another {type(now).__name__} now, but "
        f"{function.__name__}() still runs and updates the variables of the first (old) one. The "
        "new one is never trained.",
        phase="model",
        confidence=0.96,
        suggestions=(
            f"make a new function for each {name}: def make_step({name}, ...): @tf.function "
            "def step(...): ...; return step",
            f"or pass it as an argument: {function.__name__}({name}, ...) is traced for each",
        ),
        evidence={"name": name, "is_certain": True},
    ).at(_site_of_read(function, name))


def _site_of_read(function: Any, name: str) -> CallSite:
    """Return the first line of a function that reads a name; its own first line for none."""
    import linecache

    code, plain = function.__code__, name.partition("[")[0].rpartition(".")[2]
    last = max((line for _, _, line in code.co_lines() if line), default=code.co_firstlineno)
    lines = range(code.co_firstlineno + 1, last + 1)
    reads = (line for line in lines if plain in linecache.getline(code.co_filename, line))
    return CallSite(code.co_filename, next(reads, code.co_firstlineno))
