"""Which module may import which, and how large one may grow."""

import ast
import tomllib
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("headstart", "flows", "tasks", "debug")
PACKAGES = (
    "progress",
    "store",
    "running",
    "targets",
    "dataset",
    "views",
    "backbones",
    "bottlenecks",
    "head",
    "evaluation",
    "export",
    "runs",
    "surveying",
    "ranking",
    "auditing",
    "finetuning",
    "sweeping",
    "budgeting",
    "explanation",
    "searching",
    "benching",
    "scratch",
    "models",
    "preview",
)
MAX_LINES = 500

LAYERS = {f"headstart.tasks.{name}": number for number, name in enumerate(PACKAGES)}
"""The order of tasks/: a module imports none of a later layer than its own."""


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts[0] != "headstart":
        parts = ("headstart", *parts)
    return ".".join(parts).removesuffix(".__init__")


FILES = {
    module_name(path): path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))
}


def executed(node: ast.AST) -> Iterator[ast.AST]:
    """Walk a tree, but for what stands under ``if TYPE_CHECKING:``."""
    yield node
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    for child in ast.iter_child_nodes(node):
        yield from executed(child)


def imported(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Yield the modules that a module imports, anywhere among its nodes.

    ``from headstart.tasks.export import stage`` imports a module, ``from headstart.errors import
    ConfigError`` a name; both are told by the name of the module.
    """
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in FILES else node.module


TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}
IMPORTS = {name: sorted(set(imported(executed(tree)))) for name, tree in TREES.items()}


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def layer(name: str) -> int:
    return LAYERS[".".join(name.split(".")[:3])]


def imports(*importing: str) -> Iterator[tuple[str, str]]:
    """Yield (module, module it imports) for the modules of some packages."""
    for name, others in IMPORTS.items():
        if within(name, *importing):
            yield from ((name, other) for other in others)


def test_the_modules_are_found() -> None:
    assert {"headstart.cli", "headstart.flows.transfer", "headstart.debug"} <= FILES.keys()
    found = {".".join(name.split(".")[:3]) for name in FILES if within(name, "headstart.tasks")}
    assert found - {"headstart.tasks"} == LAYERS.keys()  # a new module needs a place in the order


def test_every_package_and_every_template_is_installed() -> None:
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
        "setuptools"
    ]
    packages = {name for name, path in FILES.items() if path.name == "__init__.py"}
    assert packages == set(setup["packages"])
    templates = {
        module_name(path.parent / "__init__.py")
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.j2")
    }
    assert templates
    assert templates <= setup["package-data"].keys()


def test_imports_are_absolute_and_by_the_installed_name() -> None:
    relative = [
        name
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    bare = [pair for pair in imports("headstart") if within(pair[1], "flows", "tasks", "debug")]
    assert (relative, bare) == ([], [])


def test_tasks_import_no_flows_and_no_debugger() -> None:
    # Of the face they know the configuration, the errors, how an address may be shown, how what
    # people hand over is read and, from the package itself, the version.
    known = {
        *("headstart", "headstart.addresses", "headstart.config", "headstart.errors"),
        "headstart.reading",
    }
    wrong = [
        (name, other)
        for name, other in imports("headstart.tasks")
        if within(other, "headstart") and not within(other, "headstart.tasks")
        if other not in known
    ]
    assert wrong == []


def test_the_debugger_serves_any_program() -> None:
    wrong = [
        pair
        for pair in imports("headstart.debug")
        if within(pair[1], "headstart")
        and not within(pair[1], "headstart.debug", "headstart.errors")
    ]
    assert wrong == []


def test_flows_are_started_by_the_face_alone() -> None:
    importers = {
        name
        for name, other in imports("headstart")
        if within(other, "headstart.flows") and not within(name, "headstart.flows")
    }
    assert not [name for name in importers if not within(name, "headstart.commands")]
    assert 'import_module(f"headstart.flows.' in FILES["headstart.launch"].read_text()


def test_tasks_import_one_way() -> None:
    wrong = [
        (name, other)
        for name, other in imports("headstart.tasks")
        if within(other, "headstart.tasks")
        and "headstart.tasks" not in (name, other)
        and layer(other) > layer(name)
    ]
    assert wrong == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    needs = {
        # For type checkers, too. The package itself imports its API when that is first used, and
        # modules its version.
        name: {other for other in imported(ast.walk(tree)) if other in FILES} - {"headstart"}
        for name, tree in TREES.items()
        if name != "headstart"
    }
    assert needs
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_private_names_of_tensorflow_are_used_in_two_modules() -> None:
    # The debugger's table has them as text, to report one that has moved.
    users = {
        name
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and node.value.startswith("tensorflow.python.")
    }
    users |= {name for name, other in imports("headstart") if within(other, "tensorflow.python")}
    assert users == {"headstart.tasks.backbones.frozen_graph", "headstart.debug.internals"}


def test_the_map_names_every_room() -> None:
    text = (
        (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("the code is laid out")[2]
    )
    rooms = {path.name for top in ("tasks", "debug") for path in (ROOT / top).iterdir()
             if (path / "__init__.py").exists()}  # fmt: skip
    assert rooms
    assert [room for room in sorted(rooms) if f"{room}/" not in text] == []


def test_no_module_outgrows_its_reader() -> None:
    lines = {name: len(path.read_bytes().splitlines()) for name, path in FILES.items()}
    assert {name: number for name, number in lines.items() if number > MAX_LINES} == {}


def test_what_lies_loose_is_what_all_rooms_need() -> None:
    # Another module has a room it belongs to, or a room to be made.
    loose = {folder: len(list((ROOT / folder).glob("*.py"))) for folder in ("tasks", "debug")}
    assert loose["tasks"] <= 4, loose
    assert loose["debug"] <= 8, loose
