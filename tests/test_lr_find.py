"""Learning rates found by a range test, for heads and for fine-tuning, on cached bottlenecks."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from headstart.cli import app
from headstart.config import FinetuneConfig, TransferConfig, build_config
from headstart.errors import ConfigError
from headstart.flows.lr_find import find_learning_rate
from headstart.tasks.head.lr_range import MOST, range_test, suggest
from headstart.tasks.store.artifacts import use_store
from tests.pipeline import LADDER, QUICK, Pipeline

STEPS = 25


def find(pipeline: Pipeline, folder: Path, model: Any, *settings: str) -> dict[str, Any]:
    name = f"backbone.name={pipeline.backbone}"
    config = build_config(model, pipeline.images, None, (*QUICK, name, *settings))
    folder.mkdir(exist_ok=True)
    with use_store(pipeline.store):
        return find_learning_rate(config, STEPS, folder)


def test_rates_of_heads_and_rungs_are_found_on_what_is_cached(
    finished: Pipeline, tmp_path: Path
) -> None:
    found = find(finished, tmp_path / "head", TransferConfig)
    assert finished.num_passed() == 0  # a run has cached it
    assert found["setting"] == "head.learning_rate"
    assert 1e-5 < found["suggested"] < 1
    assert found["rates"] == sorted(found["rates"])
    assert min(found["losses"]) < 0.9 * found["losses"][0]  # it trains
    assert Path(found["picture"]).is_file()

    tail = ("head.kind=tail", "bottlenecks.cut=second", "head.optimizer=sgd")
    found = find(finished, tmp_path / "tail", TransferConfig, *tail, "head.schedule=one_cycle")
    assert found["rates"][0] == pytest.approx(1e-4)  # sgd begins higher than adam

    rung = find(finished, tmp_path / "rung", FinetuneConfig, *LADDER)
    assert rung["setting"] == "tuning.learning_rate"
    assert 1e-5 < rung["suggested"] < 1
    finished.num_passed()
    again = find(finished, tmp_path / "rung", FinetuneConfig, *LADDER)
    assert finished.num_passed() == 0
    assert again["losses"] == rung["losses"]  # the same, to the bit


@pytest.mark.parametrize(
    ("model", "settings", "words"),
    [
        (TransferConfig, ("head.kind=knn",), "no learning rate"),
        (TransferConfig, ("head.solver=lbfgs",), "no learning rate"),
        (FinetuneConfig, ("ladder.cuts=null", "ladder.num_rungs=0"), "has none"),
    ],
)
def test_where_there_is_no_rate_to_find_it_says_so(
    pipeline: Pipeline, tmp_path: Path, model: Any, settings: tuple[str, ...], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        find(pipeline, tmp_path, model, *settings)


def test_the_command_names_the_setting_of_what_it_was_asked_for(
    finished: Pipeline, tmp_path: Path
) -> None:
    told = [word for each in (*QUICK, f"backbone.name={finished.backbone}")
            for word in ("--set", each)]  # fmt: skip
    asked = ["lr-find", str(finished.images), "--steps", "10", "--store", str(finished.store.root)]
    result = CliRunner().invoke(app, [*asked, "--for", "train", *told])
    assert result.exit_code == 0, result.output
    assert "--set head.learning_rate=" in result.stdout
    refused = CliRunner().invoke(app, [*asked, "--for", "finetune", "--width", "1", *told])
    assert "from scratch" in str(refused.exception)


def test_a_head_is_advised_the_rate_by_which_its_loss_has_fallen_for_the_most_part() -> None:
    rates = [10.0 ** (power / 10 - 4) for power in range(40)]
    losses = [abs(power - 30) + 1.0 for power in range(40)]
    assert suggest(rates, losses, True) == pytest.approx(0.25 * rates[30], rel=0.05)
    assert suggest(rates, losses, True, MOST) == pytest.approx(rates[23], rel=0.05)
    seen: list[float] = []
    range_test(lambda rate: seen.append(rate) or 1.0, 10, (0.01, 1.0))  # type: ignore[func-returns-value]
    assert seen[0] == pytest.approx(0.01)
    assert seen[-1] == pytest.approx(1.0)
