"""CONTRIBUTING.md's recipes do what they say."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from headstart.config import BackboneConfig
from headstart.debug.diagnosis import Diagnosis
from headstart.debug.symptoms import callback
from headstart.debug.symptoms.loss import MIN_STEPS
from headstart.debug.symptoms.trace import TrainingTrace
from headstart.tasks.backbones import table
from headstart.tasks.backbones.backbone import load_backbone
from headstart.tasks.dataset.stage import DatasetManifest, index_of
from headstart.tasks.dataset.stage import stage as dataset_stage
from headstart.tasks.running.stage import Made, Stage, collect_outcomes
from headstart.tasks.store.artifacts import Manifest, use_store
from tests.pipeline import SIDE, Pipeline

BLOCKS = re.findall(
    r"```python\n(.*?)```",
    (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text(),
    re.DOTALL,
)


def run(block: str, **names: Any) -> dict[str, Any]:
    """Run a code block of the document; return what it defined."""
    scope = {**names, "Any": Any, "Path": Path, "np": np, "__name__": __name__}
    exec(block, scope)
    return scope


def test_a_row_in_the_table_is_a_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    scope = run(f"entry = {BLOCKS[0]}", BackboneEntry=table.BackboneEntry)
    monkeypatch.setitem(table.BACKBONES, scope["entry"].name, scope["entry"])
    network = load_backbone(BackboneConfig(name="my_mobilenet", weights="random"))
    assert network.image_size == 96
    assert network.resolve_cut("top").activation_shape == (1280,)


def test_a_rule_in_the_tuple_is_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    scope = run(BLOCKS[1], TrainingTrace=TrainingTrace, Diagnosis=Diagnosis, MIN_STEPS=MIN_STEPS)
    monkeypatch.setattr(callback, "RULES", (*callback.RULES, scope["loss_is_constant"]))
    stuck, fine = TrainingTrace(), TrainingTrace()
    stuck.losses += [1.0] * MIN_STEPS
    fine.losses += [2.0**-step for step in range(MIN_STEPS)]
    assert "constant-loss" in {found.symptom for found in callback.find_symptoms(stuck)}
    assert "constant-loss" not in {found.symptom for found in callback.find_symptoms(fine)}


def test_a_stage_is_cached(pipeline: Pipeline) -> None:
    names = {"Manifest": Manifest, "Made": Made, "Stage": Stage}
    stage = run(BLOCKS[2], DatasetManifest=DatasetManifest, index_of=index_of, **names)["stage"]
    with use_store(pipeline.store), collect_outcomes() as outcomes:
        dataset = dataset_stage(pipeline.config().dataset)
        made = [stage(dataset), stage(dataset)]
    assert [outcome.status for outcome in outcomes[-2:]] == ["miss", "hit"]
    assert made[0].key == made[1].key
    assert made[0].median_side == SIDE


def test_pip_itself_refuses_a_python_that_tensorflow_has_no_wheels_for() -> None:
    setup = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    pythons = SpecifierSet(setup["requires-python"])
    assert "3.13.9" in pythons
    assert "3.14.0" not in pythons
    needed = {one.name: one.specifier for one in map(Requirement, setup["dependencies"])}
    assert version("tensorflow") in needed["tensorflow"]
    for name, next_one in (("tensorflow", "2.22.0"), ("keras", "4.0"), ("prefect", "4.0")):
        assert next_one not in needed[name]
    for extra, names in setup["optional-dependencies"].items():
        for one in map(Requirement, names):
            assert one.name != "tensorflow" or one.specifier == needed["tensorflow"], extra
