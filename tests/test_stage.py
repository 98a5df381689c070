from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headstart.errors import DamagedShardError
from headstart.tasks.running.stage import (
    MAX_MENDED,
    Made,
    Outcome,
    Stage,
    collect_outcomes,
    mending_damage,
)
from headstart.tasks.store.artifacts import Manifest, Store


class GreetingManifest(Manifest):
    greeting: str


def make_stage(version: int = 1, calls: list[str] | None = None) -> Stage[..., GreetingManifest]:
    def compute(folder: Path, name: str, loud: bool) -> Made:
        if calls is not None:
            calls.append(name)
        (folder / "greeting.txt").write_text(f"hello {name}")
        return Made(num_rows=5, num_rows_computed=2, fields={"greeting": f"hello {name}"})

    def key_fields(name: str, loud: bool) -> dict[str, object]:
        return {"who": {"name": name}}  # how loud it is said does not change the result

    return Stage("greeting", version, GreetingManifest, compute, key_fields)


def run(stage: Stage[..., GreetingManifest], name: str, loud: bool = False) -> Outcome:
    with collect_outcomes() as outcomes:
        manifest = stage(name, loud)
    assert manifest.greeting == f"hello {name}"
    (outcome,) = outcomes
    return outcome


@pytest.mark.usefixtures("store")
def test_a_stage_computes_once() -> None:
    calls: list[str] = []
    stage = make_stage(calls=calls)
    first, second = run(stage, "Ada"), run(stage, "Ada")
    assert (first.status, first.rows, first.rows_computed) == ("miss", 5, 2)
    assert (second.status, second.rows, second.rows_computed) == ("hit", 5, 0)
    assert calls == ["Ada"]
    assert (first.share_computed, second.share_computed) == (0.4, 0.4)
    assert first.made_s == second.made_s > 0


@pytest.mark.usefixtures("store")
def test_what_is_not_in_the_key_does_not_miss() -> None:
    stage = make_stage()
    run(stage, "Ada")
    assert run(stage, "Ada", loud=True).status == "hit"


@pytest.mark.usefixtures("store")
def test_a_miss_says_which_field_changed() -> None:
    stage = make_stage()
    assert run(stage, "Ada").reason == ""
    assert run(stage, "Bob").reason == "who.name Ada -> Bob"
    assert run(make_stage(version=2), "Bob").reason == "version 1 -> 2"


@pytest.mark.parametrize("damage", ["file", "manifest"])
def test_a_damaged_artefact_is_made_again(store: Store, damage: str) -> None:
    stage = make_stage()
    run(stage, "Ada")
    folder = "artefacts" if damage == "file" else "manifests"
    (path,) = (store.root / folder / "greeting").rglob("*.*")
    path.write_text("?")
    outcome = run(stage, "Ada")
    assert (outcome.status, outcome.reason) == ("miss", "its files are gone or damaged")
    assert run(stage, "Ada").status == "hit"


def test_find_says_whether_a_call_would_hit(store: Store) -> None:
    stage = make_stage()
    assert stage.find("Ada", False) is None
    manifest = stage("Ada", False)
    assert stage.find("Ada", True) == manifest


def test_a_stage_that_fails_leaves_nothing(store: Store) -> None:
    def compute(folder: Path) -> Made:
        (folder / "half").touch()
        raise KeyboardInterrupt

    stage = Stage("fails", 1, Manifest, compute, lambda: {})
    with pytest.raises(KeyboardInterrupt):
        stage()
    assert stage.find() is None
    assert not list((store.root / "tmp").iterdir())
    assert not (store.root / "artefacts").exists()


def test_a_stage_that_always_looks_hits_when_it_finds_nothing_new(store: Store) -> None:
    world = {"seen": 1}

    def compute(folder: Path) -> Made:
        (folder / "seen.txt").write_text(str(world["seen"]))
        return Made(1, 0, fields={"key_fields": dict(world)})

    stage = Stage("world", 1, Manifest, compute)
    with collect_outcomes() as outcomes:
        first, again = stage(), stage()
        world["seen"] = 2
        changed = stage()
    assert [outcome.status for outcome in outcomes] == ["miss", "hit", "miss"]
    assert outcomes[2].reason == "seen 1 -> 2"
    assert first == again
    assert (store.root / changed.files[0].path).read_text() == "2"


def failing(damage: list[str]) -> Callable[[], int]:
    """Return work that finds one damage after the other, and then none."""

    def work() -> int:
        if damage:
            raise DamagedShardError("Shards are whole.", damage.pop(0))
        return 7

    return work


def test_damage_after_damage_is_mended() -> None:
    assert mending_damage(failing(["one", "two", "three"])) == 7


def test_damage_that_comes_back_is_not_mended_for_ever() -> None:
    with pytest.raises(DamagedShardError, match="one"):
        mending_damage(failing(["one", "two", "one", "four"]))
    again = [str(number) for number in range(2 * MAX_MENDED)]
    with pytest.raises(DamagedShardError):
        mending_damage(failing(again))
    assert len(again) == MAX_MENDED - 1


def test_a_call_that_is_spared_says_what_it_took(store: Store) -> None:
    stage = make_stage()
    with collect_outcomes() as outcomes:
        stage.skip("not needed")
        stage.skip("not needed", "Ada", False)  # never called
        manifest = stage("Ada", False)
        store.write_manifest(manifest.model_copy(update={"duration_s": 7.5}))
        stage.skip("not needed", "Ada", False)
    assert [outcome.seconds_saved for outcome in outcomes if outcome.reason == "not needed"] == [
        0.0,
        0.0,
        7.5,
    ]
    told = [(one.made_s, one.share_computed) for one in outcomes if one.reason == "not needed"]
    assert told == [(0.0, 0.0), (0.0, 0.0), (7.5, 0.4)]


def test_a_miss_is_compared_with_what_is_like_it(store: Store) -> None:
    def compute(folder: Path) -> Made:
        return Made(1, 1)

    def run_with(**fields: Any) -> str:
        stage = Stage("head", 1, Manifest, compute, lambda: fields)
        with collect_outcomes() as outcomes:
            stage()
        return outcomes[0].reason

    settings = {"rate": 1, "size": [1, 2], "kind": {"name": "a", "depth": 2}}
    assert run_with(labels="x", **settings) == ""
    assert run_with(labels="y", **settings) == "labels x -> y"
    assert run_with(labels="z", rate=2, size=(3,), kind={"name": "b", "depth": 3}) == ""
    assert run_with(labels="x", rate=1, size=(1, 2), kind=None) == (
        "kind.depth 2 -> none, kind.name a -> none"
    )
