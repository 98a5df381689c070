"""The folder of a run: whose it is, what of an earlier run stays in it, what is copied there."""

import io
import json
import os
from datetime import datetime
from pathlib import Path

import pytest
from rich.console import Console

from headstart.config import RankConfig, TransferConfig, build_config, load_config
from headstart.errors import ConfigError, HeadstartError
from headstart.flows.transfer import transfer
from headstart.tasks.export.predict import Predictor
from headstart.tasks.progress import Reporter, use_reporter
from headstart.tasks.runs import run_folder
from headstart.tasks.runs.config_file import write_config
from headstart.tasks.runs.run_folder import open_run_folder, tensorboard_command
from headstart.tasks.store.artifacts import Store
from tests.pipeline import Pipeline, statuses


@pytest.fixture
def config(tmp_path: Path) -> TransferConfig:
    return load_config(tmp_path / "photos", settings=("backbone.name=nets/mine.keras",))


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


class _Noon(datetime):
    @classmethod
    def now(cls, tz: object = None) -> "_Noon":
        return cls(2024, 5, 6, 12, 0, 0)


def test_runs_in_one_second_get_a_folder_each(
    store: Store, config: TransferConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_folder, "datetime", _Noon)
    folders = [open_run_folder(store, "photos-mine", config, None) for _ in range(3)]
    assert [folder.relative_to(store.root).as_posix() for folder in folders] == [
        "runs/photos-mine-20240506-120000",
        "runs/photos-mine-20240506-120000-2",
        "runs/photos-mine-20240506-120000-3",
    ]
    assert all(folder.is_dir() for folder in folders)


def test_a_chosen_folder_keeps_the_mode_that_its_owner_gave_it(
    store: Store, config: TransferConfig, tmp_path: Path
) -> None:
    (tmp_path / "chosen").mkdir()
    (tmp_path / "chosen").chmod(0o2750)
    before = os.umask(0o002)
    try:
        open_run_folder(store, "photos-mine", config, tmp_path / "chosen")
        made = open_run_folder(store, "photos-mine", config, tmp_path / "new" / "run")
    finally:
        os.umask(before)
    assert (tmp_path / "chosen").stat().st_mode & 0o7777 == 0o2750
    assert made.stat().st_mode & 0o777 == 0o775


def test_another_run_may_make_the_folder_first(
    store: Store, config: TransferConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_folder, "datetime", _Noon)
    monkeypatch.setattr(Path, "exists", lambda path: False)  # as if it were made a moment later
    folders = {open_run_folder(store, "photos-mine", config, None) for _ in range(3)}
    assert len(folders) == 3


def test_files_that_are_left_out_are_listed(finished: Pipeline, tmp_path: Path) -> None:
    (finished.images / "red" / "broken.png").write_bytes(b"no image")
    transfer.fn(finished.config(), finished.store.root, tmp_path / "out")
    listed = json.loads((tmp_path / "out" / "left_out.json").read_text())
    assert [entry["path"] for entry in listed] == ["red/broken.png"]
    assert "not an image" in listed[0]["reason"]
    assert json.loads((tmp_path / "out" / "run.json").read_text())["left_out"] == listed


def test_files_that_are_left_out_are_listed_where_the_run_fails(
    finished: Pipeline, tmp_path: Path
) -> None:
    (finished.images / "red" / "broken.png").write_bytes(b"no image")
    config = finished.config("head.solver=ridge")
    with pytest.raises(HeadstartError):
        transfer.fn(config, finished.store.root, tmp_path / "out")
    (listed,) = json.loads((tmp_path / "out" / "left_out.json").read_text())
    assert listed["path"] == "red/broken.png"
    assert (tmp_path / "out" / "failed.json").exists()


def test_the_files_that_the_terminal_names_have_every_remark(
    finished: Pipeline, tmp_path: Path
) -> None:
    paths = sorted(path.relative_to(finished.images) for path in finished.images.glob("*/*.png"))
    lines = [
        f"{path},{path.parent},{'val' if number % 4 == 0 else 'train'},P{number // 4}\n"
        for number, path in enumerate(paths)
    ]
    manifest, exclude = finished.images / "m.csv", tmp_path / "exclude.csv"
    manifest.write_text("path,label,split,patient\n" + "".join(lines) + "gone.png,red,val,P1\n")
    exclude.write_text("path\n" + "".join(f"not{number}.png\n" for number in range(5)))
    settings = ("dataset.group_column=patient", f"dataset.exclude={exclude}")
    told = io.StringIO()
    with use_reporter(Reporter(Console(file=told, width=500))):
        summary = finished.run(*settings, images=manifest)
    folder = Path(summary.run_dir)
    assert "and 6 more: group in several splits" in told.getvalue()
    assert "and 2 more: lines of the list that name no image" in told.getvalue()
    files = f"{folder / 'left_out.json'} and {folder / 'remarks.json'}"
    assert f"All of them: {files}" in told.getvalue()
    (lost,) = json.loads((folder / "left_out.json").read_text())
    remarks = json.loads((folder / "remarks.json").read_text())
    assert lost["path"] == "m.csv line 38"
    assert set(lost) == {"path", "reason"}
    assert {remark["left_out"] for remark in remarks} == {False}
    assert {remark["path"] for remark in remarks} == {f"P{n}" for n in range(9)} | {exclude.name}
    assert len(remarks) == 9 + 5


def test_a_chosen_folder_is_made_with_its_parents(
    store: Store, config: TransferConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = open_run_folder(store, "photos-mine", config, Path("new/results"))
    assert folder == tmp_path / "new" / "results"
    assert folder.is_dir()
    assert open_run_folder(store, "photos-mine", config, folder) == folder  # it is still empty


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("thesis.tex", "precious"),
        ("config.yaml", "database: postgres\n"),
        ("config.yaml", "[not yaml"),
        ("run.json", "{}"),
        ("tensorboard/run", "of something else"),
        (".hidden", "precious"),
    ],
)
def test_a_folder_with_other_files_is_refused_and_left_as_it_is(
    store: Store, config: TransferConfig, tmp_path: Path, name: str, text: str
) -> None:
    path = tmp_path / "mine" / name
    path.parent.mkdir(parents=True)
    path.write_text(text)
    before = files_in(tmp_path / "mine")
    with pytest.raises(ConfigError, match="holds other files"):
        open_run_folder(store, "photos-mine", config, tmp_path / "mine")
    assert files_in(tmp_path / "mine") == before


@pytest.mark.parametrize("place", ["file", "file/inside"])
def test_a_file_in_the_way_is_refused(
    store: Store, config: TransferConfig, tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").write_text("precious")
    with pytest.raises(ConfigError, match="the folder of --out cannot be written"):
        open_run_folder(store, "photos-mine", config, tmp_path / place)
    assert (tmp_path / "file").read_text() == "precious"


def test_a_folder_that_may_only_be_read_is_refused(
    store: Store, config: TransferConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # the superuser may write everywhere
    with pytest.raises(ConfigError, match="out: cannot be written"):
        open_run_folder(store, "photos-mine", config, tmp_path / "out")


def test_the_folder_of_an_earlier_run_loses_what_that_run_left_and_no_more(
    store: Store, config: TransferConfig, tmp_path: Path
) -> None:
    folder = open_run_folder(store, "photos-mine", config, tmp_path / "out")
    for name in ("tensorboard/train/events", "crash/bundle.json", "saved_model/saved_model.pb"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text("old")
    for name in ("run.json", "model.keras", "model.tflite", "my notes.txt"):
        (folder / name).write_text("old")
    (folder / "hard").mkdir()
    for name in ("heatmaps.png", "hard/one.png"):
        (folder / name).write_text("old")
    written = ("hard", "heatmaps.png", "never")
    open_run_folder(store, "photos", config, folder, written)
    assert files_in(folder).keys() == {"config.yaml", "my notes.txt"}


def test_a_run_that_replaces_another_leaves_no_model_of_it(
    finished: Pipeline, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    transfer.fn(finished.config("export.formats=[saved_model]"), finished.store.root, out)
    assert (out / "saved_model").is_dir()
    first = json.loads((out / "run.json").read_text())
    (finished.images / "red").rename(finished.images / "crimson")
    transfer.fn(finished.config(), finished.store.root, out)
    assert not (out / "saved_model").exists()
    assert Predictor.load(out).card.class_names == ("blue", "crimson", "green")
    assert json.loads((out / "run.json").read_text()) != first


def test_a_hit_of_the_head_shows_how_it_was_trained(finished: Pipeline) -> None:
    summary = finished.run()
    assert statuses(summary)["head"] == "hit"
    shown = files_in(Path(summary.run_dir) / "tensorboard")
    (artefact,) = (finished.store.root / "artefacts" / "head").iterdir()
    assert shown == files_in(artefact / "tensorboard")
    assert any("events.out.tfevents" in name for name in shown)


def test_what_happens_to_a_run_folder_does_not_reach_the_store(finished: Pipeline) -> None:
    first = finished.run()
    for path in Path(first.run_dir).rglob("*"):
        if path.is_file():
            path.write_bytes(b"edited")
    second = finished.run()
    assert set(statuses(second).values()) == {"hit"}
    assert Predictor.load(Path(second.run_dir)).card.class_names == ("blue", "green", "red")


def test_a_written_configuration_is_read_back(config: TransferConfig, tmp_path: Path) -> None:
    write_config(tmp_path, config)
    assert load_config(file=tmp_path / "config.yaml") == config


def test_a_written_configuration_is_the_same_run_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for name in ("mine.keras", "efficientnet_lite0", "mine.weights.h5"):
        Path(name).write_text("some network")
    own = {"name": "mine.keras", "weights": "mine.weights.h5"}
    ranking = {"backbones": ["mine.keras", "vgg16"], "cuts": ["top", "mine.keras:conv"]}
    written = [
        build_config(TransferConfig, "photos.csv", overrides={"backbone": own}),
        build_config(TransferConfig, "photos", overrides={"dataset.exclude": "bad.csv"}),
        build_config(RankConfig, "photos", overrides={"candidates": ranking}),
    ]
    here, read = tmp_path / "here", []
    for config in written:
        write_config(tmp_path, config)
        read.append(build_config(type(config), file=tmp_path / "config.yaml"))
    transfer_of_file, transfer_of_name, rank = (config.model_dump(mode="json") for config in read)
    assert transfer_of_file["backbone"]["name"] == str(here / "mine.keras")
    assert transfer_of_file["backbone"]["weights"] == str(here / "mine.weights.h5")
    assert transfer_of_file["dataset"]["images"] == str(here / "photos.csv")
    assert transfer_of_name["backbone"]["name"] == "efficientnet_lite0"  # whatever lies here
    assert transfer_of_name["dataset"]["exclude"] == str(here / "bad.csv")
    assert rank["candidates"]["backbones"] == [str(here / "mine.keras"), "vgg16"]
    assert rank["candidates"]["cuts"] == ["top", f"{here / 'mine.keras'}:conv"]


def test_the_tensorboard_command_can_be_pasted() -> None:
    command = tensorboard_command(Path("/results of/may"))
    assert command == "tensorboard --logdir '/results of/may/tensorboard'"
