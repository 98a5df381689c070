"""Whether a loss of the user's own may be asked once more without anything noticing.

A loss that keeps count, prints, draws random numbers or reads variables makes another run of the
program where the debugger calls it. It is left alone, and so is what cannot be seen through.
"""

import dis
import functools
import inspect
import sys
from collections.abc import Iterator
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from headstart.debug.callsites import is_users

_CHANGE = frozenset({
    "add_loss", "add_metric", "append", "appendleft", "assign", "assign_add", "assign_sub",
    "choice", "clear", "discard", "dropout", "eval", "exec", "extend", "increment", "info", "input",
    "insert", "log_metric", "logging", "next", "normal", "numpy_function", "open", "pop",
    "popleft", "print", "py_function", "py_func", "put", "rand", "randint", "randn", "random",
    "remove", "save", "savetxt", "scatter_update", "send", "set_value", "setattr", "setdefault",
    "shuffle", "summary", "timestamp", "uniform", "update", "update_state", "warn", "warning",
    "write",
})  # fmt: skip
"""Names of what changes, prints, writes or draws something."""
_STORES = ("STORE_GLOBAL", "STORE_ATTR", "STORE_SUBSCR", "DELETE_GLOBAL", "DELETE_ATTR",
           "DELETE_SUBSCR")  # fmt: skip
_STATEFUL = ("__next__", "assign", "assign_add", "bit_generator", "getrandbits", "next", "randint",
             "uniform", "write")  # fmt: skip
"""Methods of variables, of what draws numbers and of files."""
_PLAIN = (bool, int, float, complex, str, bytes, type(None), range)
MAX_SEEN = 200
"""Values that are looked at; what reaches more is not seen through."""


def may_be_asked(loss: Any) -> bool:
    """Tell whether a loss does nothing but return a value.

    Args:
        loss: A function, or an object with a ``call``.
    """
    seen: set[int] = set()
    waiting = [loss]
    if not inspect.isroutine(loss) and not isinstance(
        loss, functools.partial
    ):  # an object: what its call reads, and what it holds
        own = [one for one in type(loss).__mro__ if _is_users_own(one)]
        waiting = [vars(one)[name] for one in own for name in ("call", "__call__")
                   if name in vars(one)]  # fmt: skip
        waiting += vars(loss).values()
    while waiting:
        value = waiting.pop()
        if id(value) in seen or isinstance(value, _PLAIN):
            continue
        seen.add(id(value))
        if len(seen) > MAX_SEEN or _has_state(value):
            return False
        waiting += _behind(value, loss)
    return True


def _has_state(value: Any) -> bool:
    """Tell whether a value is a variable, holds some, or is an object of the user's own."""
    if isinstance(value, FunctionType):
        return is_users(value.__code__.co_filename) and any(map(_changes, _codes(value.__code__)))
    if isinstance(value, MethodType | ModuleType | type | list | tuple | dict | set | frozenset):
        return False
    if any(hasattr(type(value), name) for name in _STATEFUL):
        return True
    return bool(getattr(value, "variables", None)) or _is_users_own(type(value))


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _changes(code: CodeType) -> bool:
    return not _CHANGE.isdisjoint(code.co_names) or any(
        one.opname in _STORES or (one.opname == "STORE_DEREF" and one.argval in code.co_freevars)
        for one in dis.get_instructions(code)
    )


def _behind(value: Any, loss: Any) -> list[Any]:
    """Return what a value holds, or can reach by the names that it reads."""
    if isinstance(value, MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, dict):
        return [*value.values()]
    if isinstance(value, list | tuple | set | frozenset):
        return [*value]
    if not isinstance(value, FunctionType) or not is_users(value.__code__.co_filename):
        return []
    found = [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
    for cell in value.__closure__ or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:  # not filled yet
            continue
    names = {name for code in _codes(value.__code__) for name in code.co_names}
    found += [value.__globals__[name] for name in names if name in value.__globals__]
    modules = [one for one in found if isinstance(one, ModuleType)]
    own: list[Any] = [one for one in modules if is_users(getattr(one, "__file__", None) or "")]
    own += [one for one in found if isinstance(one, type) and _is_users_own(one)]
    own += [one for one in type(loss).__mro__ if _is_users_own(one)]
    reached = [vars(one)[name] for one in own for name in names if name in vars(one)]
    found += [getattr(one, "__func__", getattr(one, "fget", one)) for one in reached]
    return [one for one in found if not (isinstance(one, type) and one in type(loss).__mro__)]


def _is_users_own(kind: type) -> bool:
    """Tell whether a class is the program's."""
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    return kind.__module__ == "__main__" or is_users(file or "")
