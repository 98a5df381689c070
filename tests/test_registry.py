"""The registry of models in use, and what is promoted."""

import contextvars
import json
import shutil
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from headstart.cli import app
from headstart.config import FinetuneConfig, RetrainConfig, TransferConfig, build_config
from headstart.errors import ConfigError, RecordError
from headstart.flows.finetune import finetune
from headstart.flows.retrain import RetrainSummary, _settings, retrain
from headstart.tasks.export.model_files import ModelCard, read_card, write_card
from headstart.tasks.models.promotion import Comparison, promote
from headstart.tasks.models.registry import Registry, default_name
from headstart.tasks.runs.config_file import write_config
from headstart.tasks.store.artifacts import Store, use_store
from tests.pipeline import QUICK, Pipeline, add_images


def write_run(folder: Path, model: bytes = b"weights") -> Path:
    """Write what a finished run leaves, with no model in it that could be loaded."""
    folder.mkdir(parents=True)
    (folder / "model.keras").write_bytes(model)
    (folder / "run.json").write_text(json.dumps({"metrics": {"val": {"accuracy": 0.5}}}))
    return folder


def write_run_of(
    folder: Path, images: Path, accuracy: float, class_names: tuple[str, ...] = ("red",)
) -> Path:
    """Write a run whose model has a card, and is as right as that says."""
    write_run(folder)
    with zipfile.ZipFile(folder / "model.keras", "w") as archive:
        archive.writestr("weights", b"")
    card = ModelCard(
        class_names=class_names, image_size=8, resize="squash", run={"accuracy": accuracy}
    )
    write_card(folder / "model.keras", card)
    text = yaml.safe_dump({"dataset": {"images": str(images)}})
    (folder / "config.yaml").write_text(text, encoding="utf-8")
    return folder


def believe_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Judge models by what their cards say, rather than by loading them."""

    def judge(folder: Path, *_: Any) -> Any:
        return read_card(folder / "model.keras").run["accuracy"]

    monkeypatch.setattr("headstart.tasks.models.promotion.judge_split", judge)


def run_again(pipeline: Pipeline, *settings: str) -> RetrainSummary:
    config = build_config(
        RetrainConfig,
        pipeline.images,
        settings=(*QUICK, f"backbone.name={pipeline.backbone}", *settings),
    )
    summary = retrain.fn(config, pipeline.store.root)
    assert isinstance(summary, RetrainSummary)
    return summary


def test_a_promoted_model_is_a_copy_and_earlier_versions_stay(store: Store, tmp_path: Path) -> None:
    registry = Registry(store)
    first = registry.add("roses", write_run(tmp_path / "a", b"one"), "test", 0.8, None, False)
    second = registry.add("roses", write_run(tmp_path / "b", b"two"), "test", 0.9, 0.8, False)
    shutil.rmtree(tmp_path / "a")
    shutil.rmtree(tmp_path / "b")
    entry = registry.entry("roses")
    assert entry.in_use == second
    assert entry.versions == (first, second)
    assert [(registry.folder_of(one) / "model.keras").read_bytes() for one in entry.versions] == [
        b"one",
        b"two",
    ]


def test_an_earlier_version_is_promoted_again_by_its_folder(store: Store, tmp_path: Path) -> None:
    registry = Registry(store)
    first = registry.add("roses", write_run(tmp_path / "a", b"one"), None, None, None, True)
    registry.add("roses", write_run(tmp_path / "b", b"two"), None, None, None, True)
    third = registry.add("roses", registry.folder_of(first), None, None, None, True)
    assert (third.number, third.sha256) == (3, first.sha256)


def test_the_registry_survives_moving_the_store(store: Store, tmp_path: Path) -> None:
    Registry(store).add("roses", write_run(tmp_path / "a"), None, None, None, True)
    store.root.rename(tmp_path / "moved")
    found = Registry(Store(tmp_path / "moved")).resolve("roses@current")
    assert found == tmp_path / "moved" / "models" / "roses" / "0001"
    assert (found / "model.keras").is_file()


def test_references_name_the_version_in_use_or_a_number(store: Store, tmp_path: Path) -> None:
    registry = Registry(store)
    assert registry.resolve("some/path.keras") is None
    with pytest.raises(ConfigError, match="no promoted model"):
        registry.resolve("current")
    for number in (1, 2):
        registry.add("roses", write_run(tmp_path / str(number)), None, None, None, True)
    folders = [registry.folder_of(one) for one in registry.entry("roses").versions]
    assert registry.resolve("roses@1") == folders[0]
    assert registry.resolve("roses@current") == registry.resolve("current") == folders[1]
    for wrong in ("roses@3", "tulips@current"):
        with pytest.raises(ConfigError, match="roses@1, roses@2"):
            registry.resolve(wrong)


def test_current_alone_is_refused_where_it_could_mean_two(store: Store, tmp_path: Path) -> None:
    for name in ("roses", "tulips"):
        Registry(store).add(name, write_run(tmp_path / name), None, None, None, True)
    with pytest.raises(ConfigError, match="roses@1, tulips@1"):
        Registry(store).resolve("current")


@pytest.mark.parametrize("name", ["", "../up", "a b", "a/b", ".hidden", "x" * 65])
def test_a_name_that_is_no_folder_is_refused(store: Store, tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="name"):
        Registry(store).add(name, write_run(tmp_path / "run"), None, None, None, True)


def test_a_folder_without_a_finished_run_is_not_promoted(store: Store, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "run.json").unlink()
    with pytest.raises(ConfigError, match=r"run\.json"):
        Registry(store).add("roses", run, None, None, None, True)
    assert Registry(store).entries() == {}


@pytest.mark.parametrize("text", ["no json", "[]", '{"metrics": {"test": 1}}'])
def test_a_run_whose_figures_cannot_be_read_is_not_promoted(
    store: Store, tmp_path: Path, text: str
) -> None:
    run = write_run(tmp_path / "a")
    (run / "run.json").write_text(text)
    with pytest.raises(ConfigError, match=r"run\.json"):
        promote(run, "roses", force=True)
    assert Registry(store).entries() == {}


def test_a_damaged_registry_is_reported_with_its_file(store: Store) -> None:
    path = store.root / "models" / "registry.json"
    path.parent.mkdir()
    path.write_text('{"models": {"roses": {"versions": "none"}}}')
    with pytest.raises(RecordError, match=r"registry\.json"):
        Registry(store).entries()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("flowers", "flowers"),
        ("my photos (2)", "my-photos-2"),
        ("...", "model"),
        ("a.csv", "a"),
        ("photos.v2", "photos.v2"),
    ],
)
def test_the_default_name_is_the_data_sets(name: str, expected: str) -> None:
    assert default_name(Path("/data") / name) == expected


@pytest.mark.parametrize(
    ("accuracy", "in_use", "min_gain", "is_better"),
    [
        (0.1, None, 0.5, True),
        (0.9, 0.8, 0.0, True),
        (0.8, 0.8, 0.0, False),
        (0.7, 0.8, 0.0, False),
        (0.9, 0.8, 0.2, False),
    ],
)
def test_only_a_better_model_replaces_the_one_in_use(
    accuracy: float, in_use: float | None, min_gain: float, is_better: bool
) -> None:
    comparison = Comparison("test", 100, accuracy, in_use, min_gain)
    assert comparison.is_better is is_better
    assert comparison.describe().startswith("promoted" if is_better else "not promoted")


def test_two_promotions_at_once_leave_the_better_model_in_use(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = write_run_of(tmp_path / "good", pipeline.images, 0.9)
    poor = write_run_of(tmp_path / "poor", pipeline.images, 0.8)
    context = contextvars.Context()

    def promote_good() -> None:
        with use_store(pipeline.store):
            promote(good, "roses")

    other = threading.Thread(target=context.run, args=(promote_good,))

    def judge(folder: Path, *_: Any) -> Any:
        if folder == poor:  # no model was in use when the poor one began
            other.start()
            other.join(timeout=1)
        return read_card(folder / "model.keras").run["accuracy"]

    monkeypatch.setattr("headstart.tasks.models.promotion.judge_split", judge)
    with use_store(pipeline.store):
        promote(poor, "roses")
        other.join()
        in_use = Registry(pipeline.store).entry("roses").in_use
    assert in_use is not None
    assert (in_use.run, in_use.accuracy) == (str(good), 0.9)


def test_a_model_of_other_classes_is_not_replaced_by_accident(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    believe_cards(monkeypatch)
    cats = write_run_of(tmp_path / "cats", pipeline.images, 0.1, ("tabby", "siamese"))
    colours = write_run_of(tmp_path / "colours", pipeline.images, 0.9)
    with use_store(pipeline.store):
        promote(cats, "images", force=True)
        with pytest.raises(ConfigError, match=r"siamese, tabby[\s\S]*--name or promotion\.name"):
            promote(colours, "images")
        in_use = Registry(pipeline.store).entry("images").in_use
        assert in_use is not None
        assert in_use.run == str(cats)
        assert promote(colours, "colours")[0].number == 1
        assert promote(colours, "images", force=True)[0].number == 2


def test_a_run_that_is_a_saved_model_is_refused_with_the_reason(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "run")
    (run / "model.keras").unlink()
    (run / "saved_model").mkdir()
    with use_store(pipeline.store), pytest.raises(ConfigError, match="has no model"):
        promote(run, "photos", force=True)
    told = CliRunner().invoke(app, ["sources", "add", str(run)])
    assert isinstance(told.exception, ConfigError)
    assert "no model.keras" in told.exception.problem
    (tmp_path / "net").mkdir()
    settings = ("export.formats=[keras]", f"backbone.name={tmp_path / 'net'}")
    config = build_config(RetrainConfig, pipeline.images, settings=settings)
    with pytest.raises(ConfigError, match="has no model"):
        retrain.fn(config, pipeline.store.root)


def test_retraining_on_other_classes_is_refused_before_it_trains(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    cats = write_run_of(tmp_path / "cats", pipeline.images, 0.1, ("tabby", "siamese"))
    with use_store(pipeline.store):
        promote(cats, "images", force=True)
    with pytest.raises(ConfigError, match=r"promotion\.name"):
        run_again(pipeline)
    assert pipeline.num_passed() == 0


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, ""),
        ({"val_fraction": 0.2, "split_seed": 3}, "dataset.val_fraction and dataset.split_seed"),
        ({"strict": True}, ""),
        ({"nonsense": 1}, "not known"),
    ],
)
def test_images_that_the_model_in_use_may_have_learned_from_are_told(
    pipeline: Pipeline,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fields: dict[str, Any],
    told: str,
) -> None:
    believe_cards(monkeypatch)
    before = write_run_of(tmp_path / "before", pipeline.images, 0.5)
    text = yaml.safe_dump({"dataset": {"images": "elsewhere", **fields}})
    (before / "config.yaml").write_text(text, encoding="utf-8")
    with use_store(pipeline.store):
        promote(before, "roses", force=True)
        _, reason = promote(write_run_of(tmp_path / "new", pipeline.images, 0.6), "roses")
    sentence, _, doubt = reason.partition("; ")
    assert sentence.endswith("test images")
    assert told in doubt if told else not doubt


def test_retraining_promotes_keeps_and_does_nothing(pipeline: Pipeline) -> None:
    poor = ("head.learning_rate=1e-6", "head.epochs=1")
    first = run_again(pipeline, *poor)
    assert (first.decision, first.name) == ("promoted", "images")
    pipeline.num_passed()
    runs = sorted((pipeline.store.root / "runs").iterdir())
    again = run_again(pipeline, *poor)
    assert (again.decision, again.run) == ("unchanged", None)
    assert sorted((pipeline.store.root / "runs").iterdir()) == runs
    assert again.in_use == first.in_use

    better = run_again(pipeline)  # the same images, another configuration
    assert better.decision == "promoted"
    assert pipeline.num_passed() == 0  # its bottlenecks were there
    worse = run_again(pipeline, *poor)
    assert worse.decision == "kept"
    assert worse.in_use == better.in_use

    add_images(pipeline.images, "red", range(900, 903))
    grown = run_again(pipeline)
    assert grown.decision == "kept"  # no model beats one that is always right
    assert pipeline.num_passed() == 3
    assert "in use" in grown.reason


def test_a_backbone_file_counts_by_its_content(tmp_path: Path) -> None:
    def state() -> list[Any]:
        files = ("backbone.name", keras), ("backbone.name", saved), ("backbone.weights", weights)
        settings = ([f"{field}={path}"] for field, path in files)
        return [_settings(build_config(RetrainConfig, "images", settings=one)) for one in settings]

    keras, saved, weights = tmp_path / "a.keras", tmp_path / "b", tmp_path / "c.weights.h5"
    missing = state()
    (saved / "variables").mkdir(parents=True)
    for file in (keras, weights, saved / "saved_model.pb", saved / "variables" / "data"):
        file.write_bytes(b"one")
    before = state()
    assert state() == before
    assert not any(one == two for one, two in zip(before, missing, strict=True))
    for file in (keras, weights, saved / "variables" / "data"):
        file.write_bytes(b"two")
    assert not any(one == two for one, two in zip(before, state(), strict=True))


def test_a_field_at_its_default_does_not_count_as_a_change() -> None:
    assert _settings(build_config(RetrainConfig, "images")) == {"dataset": {}}
    told = build_config(RetrainConfig, "images", settings=("dataset.thousands_sign=,",))
    assert _settings(told) == {"dataset": {"thousands_sign": ","}}


def test_what_is_trained_is_what_the_transfer_flow_trains() -> None:
    config = build_config(RetrainConfig, "images", settings=("promotion.name=a", "head.epochs=3"))
    assert config.training() == build_config(TransferConfig, "images", settings=("head.epochs=3",))


def invoke(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.stdout


def test_the_commands_promote_list_and_predict(finished: Pipeline) -> None:
    store = ("--store", str(finished.store.root))
    (run,) = (finished.store.root / "runs").iterdir()
    code, text = invoke("promote", str(run), *store)
    assert code == 0
    assert text.startswith("images@1: promoted as the first model: 100.00 % on")
    code, text = invoke("promote", str(run), *store)
    assert code == 1
    assert "not promoted: 100.00 % against 100.00 % for the model in use" in text
    code, text = invoke("promote", str(run), "--force", *store)
    assert (code, text) == (0, "images@2: promoted without comparing\n")

    code, text = invoke("models", "--json", *store)
    listed = json.loads(text)["images"]
    assert (code, listed["current"], len(listed["versions"])) == (0, 2, 2)
    code, text = invoke("models", *store)
    assert "images@1" in text
    assert "→  images@2" in text

    image = next((finished.images / "red").iterdir())
    code, text = invoke("predict", "images@current", str(image), "--json", *store)
    assert code == 0
    assert json.loads(text)["label"] == "red"


@pytest.mark.parametrize(
    "settings", [("budget.seconds=60",), ("head.kind=nearest_mean",), ("head.solver=lbfgs",)]
)
def test_what_finetune_does_not_take_can_be_promoted_and_registered(
    finished: Pipeline, settings: tuple[str, ...]
) -> None:
    (run,) = (finished.store.root / "runs").iterdir()
    write_config(run, finished.config(*settings))  # as a run with a budget leaves it
    store = ("--store", str(finished.store.root))
    code, text = invoke("promote", str(run), *store)
    assert (code, text[:38]) == (0, "images@1: promoted as the first model:"), text
    code, text = invoke("sources", "add", str(run), *store)
    assert code == 0, text


def test_what_was_fine_tuned_is_promoted_under_its_data_sets_name(finished: Pipeline) -> None:
    settings = (*QUICK, f"backbone.name={finished.backbone}", "ladder.cuts=[]")
    config = build_config(FinetuneConfig, finished.images, settings=settings)
    run = finetune.fn(config, finished.store.root).run_dir
    code, text = invoke("promote", run, "--store", str(finished.store.root))
    assert code == 0
    assert text.startswith("images@1: promoted as the first model: 100.00 % on")


def test_a_store_that_cannot_be_written_is_named_and_its_sources_are_listed(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_run(tmp_path / "run")
    monkeypatch.setattr(Store, "is_writable", False)  # permissions would not keep the superuser
    with pytest.raises(RecordError, match="the store cannot be written"):
        Registry(store).add("colours", run, None, None, None, forced=True)
    assert not (store.root / "models").exists()
    result = CliRunner().invoke(app, ["sources", "ls", "--store", str(store.root)])
    assert result.exit_code == 0, result.output
    assert not (store.root / "sources").exists()
