"""The runs of a store side by side, and two of them against each other."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml
from typer.testing import CliRunner, Result

from headstart.cli import app
from headstart.errors import ConfigError, DatasetError
from headstart.flows.transfer import transfer
from headstart.tasks.runs.comparing import compare_runs
from headstart.tasks.runs.judged_images import COLUMNS
from headstart.tasks.runs.overview import RunLine, find_run, list_runs, sort_runs
from headstart.tasks.store.sealing import sealed_text
from tests.pipeline import Pipeline


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def two(finished: Pipeline) -> Pipeline:
    """Return a store with a good run, and one that learnt nothing and lies elsewhere."""
    bad = finished.config("head.epochs=1", "head.learning_rate=1e-6", "head.kind=mlp")
    transfer.fn(bad, finished.store.root, finished.images.parent / "mine")
    return finished


def test_runs_are_listed_compared_and_sorted(two: Pipeline) -> None:
    root = two.store.root
    newest, oldest = list_runs(root)
    assert (newest.name, newest.head, newest.status) == ("mine", "mlp", "finished")
    assert (oldest.data, oldest.backbone, oldest.cut) == ("images", "net.keras", "top")
    assert (oldest.command, oldest.head, oldest.accuracy) == ("train", "linear", 1.0)
    assert sort_runs([newest, oldest], "accuracy") == [oldest, newest]
    assert find_run(root, "2") == find_run(root, oldest.name[-6:]) == oldest
    assert find_run(root, str(two.images.parent / "mine")) == newest
    with pytest.raises(ConfigError, match="no such run"):
        find_run(root, "nothing")

    made = compare_runs(oldest, newest)
    names = {name for name, _, _ in made.settings}
    paths = {"dataset.images", "backbone.name"}  # the first run was another test's
    assert names - paths == {"head.epochs", "head.learning_rate", "head.kind"}
    text = (Path(newest.folder) / "predictions.csv").read_text()
    judged = list(csv.DictReader(text.splitlines()))
    wrong = {row["path"] for row in judged if row["label"] != row["predicted"]}
    assert wrong
    assert {image.path for image in made.changed} == wrong
    assert made.num_common == len(judged)
    assert made.num_fixed == 0
    assert compare_runs(newest, oldest).num_fixed == len(wrong)
    assert made.p_value == pytest.approx(min(1.0, 2 * 0.5 ** len(wrong)))

    for width in (60, 80, 120):
        shown = CliRunner().invoke(app, ["runs", "--store", str(root)], env={"COLUMNS": str(width)})
        assert shown.exit_code == 0
        assert max(map(len, shown.output.splitlines())) <= width
        assert "net.keras" in shown.output
        assert ("mine" in shown.output) == (width == 120)
    as_json = json.loads(call("runs", "--store", root, "--json").output)
    assert [run["name"] for run in as_json["runs"]] == ["mine", oldest.name]
    told = call("runs", "compare", "2", "1", "--store", root)
    assert "McNemar's p" in told.output
    assert "head.kind" in told.output
    assert all(path in told.output for path in wrong)
    fields = json.loads(call("runs", "compare", "2", "1", "--store", root, "--json").output)
    assert fields["num_newly_wrong"] == len(wrong)


def test_a_run_that_fails_on_a_typo_leaves_no_folder(finished: Pipeline, tmp_path: Path) -> None:
    before = sorted((finished.store.root / "runs").iterdir())
    missing = finished.config(images=tmp_path / "no-such-folder")
    for out in (None, tmp_path / "new"):
        with pytest.raises(DatasetError):
            transfer.fn(missing, finished.store.root, out)
    (tmp_path / "there").mkdir()
    with pytest.raises(DatasetError):
        transfer.fn(missing, finished.store.root, tmp_path / "there")
    assert sorted((finished.store.root / "runs").iterdir()) == before
    assert not (tmp_path / "new").exists()
    assert list((tmp_path / "there").iterdir()) == []


def test_a_run_that_fails_with_something_to_keep_says_why(
    finished: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headstart.flows import transfer as flow

    def fail(*_: object) -> None:
        raise ConfigError("the coffee is out", "none", "buy some")

    monkeypatch.setattr(flow, "make_report", fail)
    with pytest.raises(ConfigError, match="coffee"):
        transfer.fn(finished.config("head.epochs=3"), finished.store.root)
    newest = list_runs(finished.store.root)[0]
    assert (newest.status, newest.reason) == ("failed", "the coffee is out")
    assert "1: the coffee is out" in call("runs", "--store", finished.store.root).output


def test_an_image_whose_label_changed_does_not_change_sides(finished: Pipeline) -> None:
    path = next((finished.images / "red").iterdir())
    first = list_runs(finished.store.root)[0]
    path.rename(finished.images / "blue" / f"moved-{path.name}")
    transfer.fn(finished.config(), finished.store.root)
    second = list_runs(finished.store.root)[0]
    assert second != first
    assert path.name not in {Path(one.path).name for one in compare_runs(first, second).changed}


def run_of(
    folder: Path, answers: dict[str, tuple[str, str]], metrics: Any, columns: Any
) -> RunLine:
    """Write what a run of numbers leaves for its comparison."""
    folder.mkdir()
    dataset = {"images": "m.csv", **({"target_columns": columns} if columns else {})}
    (folder / "config.yaml").write_text(yaml.safe_dump({"dataset": dataset}))
    (folder / "run.json").write_text(sealed_text({"metrics": {"test": metrics}}))
    lines = [f"test,{name},{name:0>64},{true},{said},0.5" for name, (true, said) in answers.items()]
    header = ",".join(COLUMNS)
    (folder / "predictions.csv").write_text("\n".join([header, *lines]))
    return cast(RunLine, SimpleNamespace(folder=str(folder), name=folder.name))


def test_only_runs_of_the_same_targets_are_compared(tmp_path: Path) -> None:
    told = {"1": ("5", "4"), "2": ("6", "6")}
    price = run_of(tmp_path / "price", told, {"mae": 1.0}, ["price"])
    both = run_of(tmp_path / "both", told, {"mae": 1.0}, ["price", "age"])
    kinds = run_of(tmp_path / "kinds", {"1": ("a", "b")}, {"accuracy": 0.5}, None)
    for one, other in ((price, kinds), (kinds, price), (price, both)):
        with pytest.raises(ConfigError, match="different targets"):
            compare_runs(one, other)
    mended = run_of(
        tmp_path / "mended", {"1": ("50", "49"), "2": ("6", "9")}, {"mae": 1.0}, ["price"]
    )
    made = compare_runs(price, mended)
    assert made.num_common == 1  # the other's true value is another since
    assert made.nearer == (1, 0)
