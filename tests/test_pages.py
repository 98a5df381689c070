"""The folder of a run of pages, and what its stages take where nothing is in the store."""

from pathlib import Path

import pytest

from headstart.config import RankConfig, build_config
from headstart.tasks.running.stage import Outcome
from headstart.tasks.runs.run_folder import cold_seconds, open_run_folder
from headstart.tasks.store.artifacts import Store


def test_a_run_that_replaces_another_has_none_of_its_trainings(
    store: Store, tmp_path: Path
) -> None:
    config = build_config(RankConfig, tmp_path / "images")
    folder = open_run_folder(store, "rank", config, tmp_path / "out")
    for name in ("tensorboard/0-a-top/events", "crash/0-a-top/bundle.json", "mine/notes"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text("old")
    (folder / "run.json").write_text("{}")
    assert open_run_folder(store, "rank", config, tmp_path / "out") == folder
    assert {path.name for path in folder.iterdir()} == {"config.yaml", "mine"}


def test_a_stage_that_found_some_of_its_rows_is_scaled_up_to_all_of_them() -> None:
    outcomes = [
        Outcome(name="views", status="hit", seconds=0.1, seconds_saved=9.9, made_s=10.0),
        Outcome(name="bottlenecks", status="miss", seconds=4.0, made_s=4.0, share_computed=0.25),
        Outcome(name="head", status="miss", seconds=2.0, made_s=2.0, share_computed=0.0),
    ]
    assert cold_seconds(outcomes) == pytest.approx(10.0 + 16.0 + 2.0)
