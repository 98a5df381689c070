"""prefect.yaml, and the forms that the Prefect UI makes of the flows' parameters."""

import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from prefect import Flow
from prefect.utilities.callables import parameter_schema

from headstart import flows
from headstart.config import TransferConfig
from headstart.service.provisioning import POOL, definition, deployment_names, write_project

ROOT = Path(__file__).parent.parent
PROJECT = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))
DEPLOYMENTS = {deployment["name"]: deployment for deployment in PROJECT["deployments"]}


def find_flows() -> dict[str, Flow[..., Any]]:
    """Return the flows of headstart.flows, by the name of their module."""
    found = {}
    for module in pkgutil.iter_modules(flows.__path__):
        loaded = importlib.import_module(f"{flows.__name__}.{module.name}")
        candidate = getattr(loaded, module.name, None)
        if isinstance(candidate, Flow):
            found[module.name] = candidate
    return found


FLOWS = find_flows()


def schema_of(name: str) -> dict[str, Any]:
    return parameter_schema(FLOWS[name]).model_dump_for_openapi()


def fields(schema: dict[str, Any], node: dict[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    """Yield every field below a node of a JSON schema, with its path."""
    reference = node.get("$ref", "").rpartition("/")[2]
    inner = [schema["definitions"][reference]] if reference else []
    inner += [*node.get("anyOf", ()), *node.get("allOf", ()), *node.get("oneOf", ())]
    items = node.get("items", {})
    inner += [items] if isinstance(items, dict) else items
    for part in inner:
        if part:
            yield from fields(schema, part, path)
    for name, field in node.get("properties", {}).items():
        # A box bears the title and the description of its model where it has none of its own.
        boxes = [field, *field.get("anyOf", ())]  # a box that may be left out is one of two
        reference = next((box["$ref"] for box in boxes if "$ref" in box), "")
        named = schema["definitions"].get(reference.rpartition("/")[2], {})
        yield f"{path}.{name}", {**named, **field}
        yield from fields(schema, field, f"{path}.{name}")


def numbers(node: Any) -> Iterator[dict[str, Any]]:
    """Yield the parts of a field that are numbers."""
    if isinstance(node, dict):
        if node.get("type") in ("integer", "number") and "const" not in node:
            yield node
        for key, part in node.items():
            if key not in ("default", "properties"):
                yield from numbers(part)
    elif isinstance(node, list):
        for part in node:
            yield from numbers(part)


def test_every_flow_has_a_deployment() -> None:
    assert set(DEPLOYMENTS) == set(FLOWS)


@pytest.mark.parametrize("name", FLOWS)
def test_a_deployment_is_complete(name: str) -> None:
    deployment = DEPLOYMENTS[name]
    assert deployment["entrypoint"] == f"headstart.flows.{name}.{name}"
    assert deployment["description"]
    assert "headstart" in deployment["tags"]
    assert deployment["work_pool"] == {"name": POOL}
    assert deployment["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}


@pytest.mark.parametrize("name", FLOWS)
def test_the_parameters_of_a_deployment_fit_its_form(name: str) -> None:
    errors = Draft202012Validator(schema_of(name)).iter_errors(DEPLOYMENTS[name]["parameters"])
    missing = [error.message for error in errors]
    # A source is a model of the user's own, which the form asks for.
    asked = [f"'{field}' is a required property" for field in ("name", "model", "backbone")]
    assert missing == (asked if name == "sources" else [])


def test_the_nightly_retraining_is_there_and_paused() -> None:
    (schedule,) = DEPLOYMENTS["retrain"]["schedules"]
    assert schedule == {"cron": "0 2 * * *", "timezone": "UTC", "active": False}
    assert [name for name in DEPLOYMENTS if "schedules" in DEPLOYMENTS[name]] == ["retrain"]


@pytest.mark.parametrize("name", FLOWS)
def test_every_field_of_a_form_says_what_it_is(name: str) -> None:
    schema = schema_of(name)
    found = dict(fields(schema, schema, name))
    assert len(found) > 10
    assert [path for path, field in found.items() if not field.get("title")] == []
    undescribed = [
        path
        for path, field in found.items()
        if not field.get("description") and not path.endswith(".kind")  # what tells a union apart
    ]
    assert undescribed == []


@pytest.mark.parametrize("name", FLOWS)
def test_every_number_of_a_form_has_a_bound(name: str) -> None:
    schema = schema_of(name)
    bounds = {"minimum", "exclusiveMinimum"}
    open_ended = [
        path
        for path, field in fields(schema, schema, name)
        for number in numbers(field)
        if not bounds & number.keys()
    ]
    assert open_ended == []


@pytest.mark.parametrize(
    "config",
    [
        {"dataset": {"images": "images", "val_fraction": 1.5}},
        {"dataset": {"images": "images"}, "head": {"kind": "no such head"}},
        {"dataset": {"images": "images"}, "head": {"no_such_field": 1}},
        {"dataset": {}},
    ],
)
def test_a_wrong_value_is_refused_by_the_form(config: dict[str, Any]) -> None:
    # Prefect validates what is submitted against this schema.
    schema = schema_of("transfer")
    validator = Draft202012Validator(schema)
    assert validator.is_valid({"config": {"dataset": {"images": "images"}}})
    assert not validator.is_valid({"config": config})


@pytest.mark.parametrize("values", [["0", "1"], [0, 1], [[0, -1], 1], [False, ["yes", True]]])
def test_what_the_form_makes_of_cells_is_what_the_flow_takes(values: list[Any]) -> None:
    # Where several types fit, the form takes what stands in a field for JSON, its default too.
    config = {"dataset": {"images": "images", "label_values": values}}
    assert Draft202012Validator(schema_of("transfer")).is_valid({"config": config})
    assert TransferConfig.model_validate(config).dataset.label_values


def test_the_installed_package_has_the_deployments() -> None:
    assert definition() == PROJECT
    assert deployment_names() == [f"{name}/{name}" for name in DEPLOYMENTS]


def test_up_proposes_the_users_images_and_folder(tmp_path: Path) -> None:
    path = write_project(tmp_path / "service", "mine", Path("photos"), tmp_path)
    written = yaml.safe_load(path.read_text())
    for deployment in written["deployments"]:
        assert deployment["work_pool"] == {"name": "mine"}
        dataset = deployment["parameters"]["config"].get("dataset", {})
        assert dataset.get("images", str(tmp_path / "photos")) == str(tmp_path / "photos")
    ((step, inputs),) = written["pull"][0].items()
    assert step.endswith("set_working_directory")
    assert inputs == {"directory": str(tmp_path)}
