"""What an error says, and in which order."""

import ast
import pickle
from pathlib import Path

import pytest

from headstart import errors
from headstart.cli import _print_error
from headstart.errors import HeadstartError, RecordError

ROOT = Path(__file__).parent.parent
CLASSES = {
    name
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, HeadstartError)
}
ERROR = RecordError("there is no store here", "/tmp/x has no store.json", "name one with --store")


def test_an_error_says_what_went_wrong_before_what_was_received_and_what_to_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert str(ERROR).splitlines() == [
        "there is no store here",
        "got: /tmp/x has no store.json",
        "next: name one with --store",
    ]
    _print_error(ERROR)
    assert capsys.readouterr().err.splitlines() == [
        "RecordError: there is no store here",
        "  got: /tmp/x has no store.json",
        "  next: name one with --store",
    ]


def test_an_error_survives_pickling_with_its_parts_apart() -> None:
    again = pickle.loads(pickle.dumps(ERROR))
    assert (again.problem, again.details()) == (ERROR.problem, ERROR.details())


def _problems(path: Path) -> list[tuple[int, str]]:
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in CLASSES and node.args:
            first = node.args[0]
            text = first.value if isinstance(first, ast.Constant) else ast.unparse(first)[2:-1]
            found.append((node.lineno, str(text)))
    return found


def test_no_error_states_the_wished_for_condition_as_a_sentence() -> None:
    """`A store can be written.` reads as a fact; `the store cannot be written` as an error."""
    places = [
        f"{path.relative_to(ROOT)}:{line}: {text}"
        for folder in ("headstart", "flows", "tasks")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for line, text in _problems(path)
        if text.endswith(".") or text.startswith(("A ", "An ", "The "))
    ]
    assert places == []
