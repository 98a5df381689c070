"""`headstart audit` from end to end, with planted faults."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from headstart.cli import app
from headstart.config import AuditConfig, build_config
from tests.pipeline import QUICK, Pipeline

SMALL = ("bottlenecks.batch_size=4", "bottlenecks.num_parity_rows=2", "num_shown=3")


def audit(pipeline: Pipeline, *settings: str) -> Any:
    from headstart.flows.audit import audit as flow

    config = build_config(
        AuditConfig,
        pipeline.images,
        settings=(*SMALL, f"backbone.name={pipeline.backbone}", *settings),
    )
    return flow.fn(config, pipeline.store.root)


def rows_of(path: str) -> list[dict[str, str]]:
    return list(csv.DictReader(Path(path).read_text().splitlines()))


def split_by_folder(images: Path) -> None:
    """Give the data set a train and a val folder of its own."""
    for label in sorted(path.name for path in images.iterdir()):
        for number, file in enumerate(sorted((images / label).iterdir())):
            target = images / ("val" if number % 4 == 0 else "train") / label / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            file.rename(target)
        (images / label).rmdir()


def test_planted_faults_are_found_and_can_be_left_out(pipeline: Pipeline) -> None:
    split_by_folder(pipeline.images)
    val, train = pipeline.images / "val", pipeline.images / "train"
    source = sorted((val / "red").iterdir())[0]
    copies = train / "red" / "mirrored.png", train / "red" / "compressed.jpg"
    with Image.open(source) as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(copies[0])
        image.save(copies[1], quality=90)
    wrong = sorted((train / "blue").iterdir())[0]
    shutil.move(wrong, train / "green" / "wrong.png")
    (train / "green" / "half.png").write_bytes(source.read_bytes()[:60])
    summary = audit(pipeline)
    (listed,) = json.loads((Path(summary.run_dir) / "left_out.json").read_text())
    assert listed["path"] == "train/green/half.png"
    leaks = {
        row["path"] for row in rows_of(summary.findings) if row["kind"] == "leak"
    }  # fmt: skip
    assert {path.relative_to(pipeline.images).as_posix() for path in copies} <= leaks
    worst = rows_of(summary.labels)[0]
    assert worst["path"] == "train/green/wrong.png"
    assert worst["suggested_label"] == "blue"
    page = Path(summary.report).read_text()
    assert "train/green/wrong.png" in page
    assert page.count("data:image/jpeg") >= 2
    excluded = {row["path"] for row in rows_of(summary.exclude)}
    assert {"train/green/wrong.png", *leaks} <= excluded
    again = pipeline.index(f"dataset.exclude={summary.exclude}")
    assert excluded.isdisjoint({row.path for row in again.rows})


def test_a_cut_that_an_earlier_run_wrote_costs_no_pass(pipeline: Pipeline) -> None:
    pipeline.extract("bottlenecks.cut=second", "bottlenecks.extra_cuts=[top]")
    pipeline.num_passed()
    summary = audit(pipeline, "views.num_augmented=3")  # of which it reads none
    assert pipeline.num_passed() == 0
    assert sum(one.rows_computed for one in summary.stages if one.name == "bottlenecks") == 0
    spatial = audit(pipeline, "bottlenecks.cut=second")
    assert pipeline.num_passed() == 0
    assert spatial.metrics["num_images"] == 36


def test_a_second_audit_is_a_hit_even_without_views(pipeline: Pipeline) -> None:
    audit(pipeline)
    shutil.rmtree(pipeline.store.root / "rows" / "views")
    again = audit(pipeline)
    assert {one.status for one in again.stages if one.name in ("pictures", "audit")} == {"hit"}
    assert not (pipeline.store.root / "rows" / "views").exists()


def test_the_command_prints_and_repeats_from_its_config(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADSTART_STORE", str(pipeline.store.root))
    out = tmp_path / "out"
    arguments = ["audit", str(pipeline.images), "--backbone", str(pipeline.backbone)]
    arguments += ["--out", str(out), "--json"]
    for setting in SMALL:
        arguments += ["--set", setting]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed["metrics"]["num_images"] == 36
    assert set(printed["metrics"]["counts"]) >= {"label_error", "leak", "near_duplicate"}
    again = CliRunner().invoke(app, ["audit", "--config", str(out / "config.yaml")])
    assert again.exit_code == 0, again.output
    assert "--exclude" in again.stdout
    trained = CliRunner().invoke(
        app,
        ["train", str(pipeline.images), "--exclude", str(out / "exclude.csv"), "--json"]
        + [
            part
            for one in (*QUICK, f"backbone.name={pipeline.backbone}")
            for part in ("--set", one)
        ],
    )
    assert trained.exit_code == 0, trained.output
