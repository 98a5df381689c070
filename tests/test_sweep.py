"""Many heads at once: each comes out as it would alone, and the best is chosen honestly."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from typer.testing import CliRunner

from headstart.cli import app
from headstart.config import HeadConfig, SweepConfig, TransferConfig, build_config
from headstart.config.sweep import MAX_HEADS, swept_heads
from headstart.errors import ConfigError, TrainingError
from headstart.tasks.bottlenecks.rows import LabelledRows
from headstart.tasks.head.training import train_head
from headstart.tasks.sweeping.pooled import hold_out, pool
from headstart.tasks.sweeping.stage import _best
from headstart.tasks.sweeping.together import HeadCurve, train_heads
from tests.pipeline import QUICK, Pipeline
from tests.test_head import NUM_CLASSES, make_rows

TOGETHER = (
    {"learning_rate": 0.05, "dropout": 0.0},
    {"learning_rate": 0.01, "dropout": 0.4, "weight_decay": 3.0, "label_smoothing": 0.2},
    {"learning_rate": 0.2, "dropout": 0.1, "weight_decay": 0.0, "patience": 1},
    {"kind": "mlp", "hidden_units": (8,), "optimizer": "sgd", "schedule": "one_cycle",
     "dropout": 0.3, "weight_decay": 0.01, "class_weights": "balanced", "seed": 5},
    {"kind": "mlp", "hidden_units": (8,), "optimizer": "sgd", "schedule": "one_cycle",
     "dropout": 0.0, "weight_decay": 0.0, "class_weights": "balanced", "seed": 5},
    {"schedule": "constant", "batch_size": 16},
)  # fmt: skip


@pytest.fixture
def splits(tmp_path: Path) -> tuple[LabelledRows, LabelledRows]:
    """Rows to learn from, with two augmented views, and held-out ones; spatial bottlenecks."""
    rng = np.random.default_rng(0)
    tensors = rng.normal(size=(41, 3, 2, 2, 6)).astype(np.float16)
    labels = np.arange(41) // 2 % NUM_CLASSES
    tensors[np.arange(41), ..., labels] += 1
    fit = make_rows(tmp_path / "store", tensors[:30], labels[:30], name="fit")
    return fit, make_rows(tmp_path / "store", tensors[30:, :1], labels[30:], name="held-out")


def test_heads_trained_together_come_out_as_each_does_alone(splits, tmp_path: Path) -> None:
    fit, held_out = splits
    configs = [HeadConfig(epochs=4, **{"batch_size": 8, **fields}) for fields in TOGETHER]
    curves = train_heads(pool(fit), pool(held_out), configs, NUM_CLASSES)
    assert [curve.config for curve in curves] == configs
    for config, curve in zip(configs, curves, strict=True):
        alone = train_head(fit, held_out, config, NUM_CLASSES, None, tmp_path / "log")
        assert curve.best_epoch == alone.best_epoch
        for name, values in (
            ("train_loss", curve.train_losses),
            ("val_loss", curve.losses),
            ("val_accuracy", curve.accuracies),
        ):
            expected = [getattr(figures, name) for figures in alone.history]
            np.testing.assert_allclose(values, expected, rtol=2e-4, err_msg=f"{name} of {config}")


@pytest.mark.parametrize("kind", ["labels", "number"])
def test_heads_for_labels_and_numbers_come_out_as_each_does_alone(
    splits, tmp_path: Path, kind: Any
) -> None:
    rng = np.random.default_rng(1)
    fit, held_out = (
        replace(
            rows,
            kind=kind,
            labels=(rng.random((len(rows), 3)) < 0.4).astype(np.uint8)
            if kind == "labels"
            else rng.normal((1e9, 0, 5), (1e8, 1, 1e-2), (len(rows), 3)),
        )
        for rows in splits
    )
    varied = {
        "labels": ({"label_smoothing": 0.2, "dropout": 0.4}, {"class_weights": "balanced"}),
        "number": ({"number_loss": "huber"}, {"kind": "mlp", "hidden_units": (8,)}),
    }
    configs = [HeadConfig(epochs=2, batch_size=8, **fields) for fields in varied[kind]]
    curves = train_heads(pool(fit), pool(held_out), configs, 3)
    for config, curve in zip(configs, curves, strict=True):
        alone = train_head(fit, held_out, config, 3, None, tmp_path / "log")
        assert alone.history[0].metric == fit.target.metric
        for name, values in (
            ("train_loss", curve.train_losses), ("val_loss", curve.losses),
            ("val_metric", curve.accuracies),
        ):  # fmt: skip
            expected = [getattr(figures, name) for figures in alone.history]
            np.testing.assert_allclose(values, expected, rtol=1e-3, err_msg=f"{name} of {config}")


def test_a_head_that_diverges_harms_no_other(splits) -> None:
    fit, held_out = (pool(rows) for rows in splits)
    sound = HeadConfig(epochs=3, batch_size=8, optimizer="sgd", weight_decay=0.0)
    wild = sound.model_copy(update={"learning_rate": 1e38, "schedule": "cosine"})
    (alone,) = train_heads(fit, held_out, [sound], NUM_CLASSES)
    broken, beside = train_heads(fit, held_out, [wild, sound], NUM_CLASSES)
    np.testing.assert_allclose(beside.losses, alone.losses, rtol=1e-5)
    assert broken.has_stopped
    assert len(broken.losses) < 3
    assert not np.isfinite(broken.train_losses[-1])


def test_heads_of_different_losses_are_held_against_each_other_by_their_errors() -> None:
    heads = [HeadConfig(number_loss=loss) for loss in ("mse", "huber")]
    curves = [HeadCurve(head) for head in heads]
    curves[0].add(1.0, 0.04, 0.16)  # of errors of 0.2 Huber's loss is half as much
    curves[1].add(1.0, 0.03, 0.20)
    assert _best(curves, heads) == 0
    assert _best(curves, [heads[0], heads[0]]) == 1
    assert _best([HeadCurve(head) for head in heads], heads) == 0  # both diverged


def test_a_head_stops_on_its_own_patience_and_keeps_its_best_epoch() -> None:
    curve = HeadCurve(HeadConfig(epochs=9, patience=2))
    for loss in (1.0, 0.5, 0.6, 0.7, 0.1):
        curve.add(1.0, loss, 1 - loss)
    assert curve.has_stopped
    assert curve.losses == [1.0, 0.5, 0.6, 0.7]  # the last came too late
    assert (curve.best_epoch, curve.loss, curve.accuracy) == (2, 0.5, 0.5)


def test_a_fifth_chooses_and_every_class_is_learned(tmp_path: Path) -> None:
    labels = [0] * 20 + [1] * 20 + [2]
    rows = make_rows(tmp_path, np.arange(41, dtype=np.float32)[:, None, None], labels)
    fit, held_out = hold_out(rows, seed=0)
    assert (len(fit), len(held_out)) == (33, 8)
    assert set(fit.labels) == {0, 1, 2}
    assert not set(fit.positions[:, 0]) & set(held_out.positions[:, 0])
    again = hold_out(rows, seed=0)[1]
    np.testing.assert_array_equal(held_out.positions, again.positions)
    assert not np.array_equal(held_out.positions, hold_out(rows, seed=1)[1].positions)
    with pytest.raises(TrainingError, match="only one image"):
        hold_out(make_rows(tmp_path, np.zeros((2, 1, 1), np.float32), [0, 1], name="few"), 0)


def heads_of(**grid: object) -> list[HeadConfig]:
    named = {f"head.{name}": values for name, values in grid.items()}
    config = build_config(SweepConfig, "images", overrides={"search.grid": named})
    return list(swept_heads(config))


def test_a_grid_has_every_combination_of_lists_and_ranges() -> None:
    heads = heads_of(learning_rate="1e-4..1e-1", dropout=[0.0, 0.5])
    assert [(head.learning_rate, head.dropout) for head in heads] == [
        (rate, dropout) for rate in (1e-4, 1e-3, 1e-2, 1e-1) for dropout in (0.0, 0.5)
    ]
    assert [head.dropout for head in heads_of(dropout="0..0.6:3")] == [0.0, 0.3, 0.6]
    heads = heads_of(kind=["linear", "mlp"], hidden_units=[[8], [8, 4]], learning_rate=[0.1, 0.1])
    assert len(heads) == 4  # each once
    assert heads[-1].hidden_units == (8, 4)


def test_random_heads_come_from_within_the_ranges_and_from_the_seed() -> None:
    def draw(seed: int) -> list[HeadConfig]:
        grid = {"head.learning_rate": "1e-4..1e-1", "head.kind": ["linear", "mlp"]}
        search = {"grid": grid, "num_random": 12, "seed": seed}
        config = build_config(SweepConfig, "images", overrides={"search": search})
        return list(swept_heads(config))

    heads = draw(0)
    assert len(heads) == 12
    assert all(1e-4 <= head.learning_rate <= 1e-1 for head in heads)
    assert {head.kind for head in heads} == {"linear", "mlp"}
    assert heads == draw(0) != draw(1)


@pytest.mark.parametrize(
    ("grid", "told"),
    [
        ({"head.rate": [1]}, "head.rate is not a field of a head"),
        ({"learning_rate": [1]}, "learning_rate is not a field of a head"),
        ({"head.dropout": [0.1, 2.0]}, "invalid head settings head.dropout=2.0"),
        ({"head.dropout": "0.5..0.1"}, "a range such as"),
        ({"head.dropout": "0..many"}, "a range such as"),
        ({"head.dropout": []}, "has no value to try"),
        ({"head.kind": ["tail"]}, "linear and mlp heads"),
        ({"head.learning_rate": f"1e-4..1:{MAX_HEADS}", "head.seed": [0, 1]}, "--random"),
    ],
)
def test_a_grid_that_cannot_be_trained_is_refused(grid: dict, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_config(SweepConfig, "images", overrides={"search.grid": grid})
    assert told in str(caught.value)


def test_the_command_exports_the_best_head_and_finds_the_sweep_again(finished: Pipeline) -> None:
    def sweep(name: str) -> dict:
        out = finished.images.parent / name
        options = [part for setting in QUICK for part in ("--set", setting)]
        result = CliRunner().invoke(app, [
            "sweep", str(finished.images), "--backbone", str(finished.backbone), *options,
            "--grid", "head.learning_rate=1e-9,0.1", "--grid", "head.dropout=0..0.5:2",
            "--store", str(finished.store.root), "--json", "--out", str(out),
        ])  # fmt: skip
        assert result.exit_code == 0, (result.output, result.exception)
        told: dict = json.loads(result.stdout)
        return told

    told = sweep("one")
    folder = Path(told["run_dir"])
    best = told["heads"][told["chosen"] - 1]
    assert len(told["heads"]) == 4
    assert best["settings"]["learning_rate"] == 0.1
    assert best["loss"] == min(head["loss"] for head in told["heads"])
    with (folder / "sweep.csv").open() as file:
        assert [row["dropout"] for row in csv.DictReader(file)] == ["0.0", "0.5"] * 2
    assert "data:image/svg+xml" in (folder / "sweep.html").read_text(encoding="utf-8")
    assert "optimistic" not in (folder / "report.html").read_text(encoding="utf-8")
    assert (folder / "model.keras").is_file()
    loaded = build_config(TransferConfig, file=Path(told["best_config"]))
    assert loaded.head.learning_rate == 0.1
    assert loaded.head.dropout == best["settings"]["dropout"]
    assert hparams_of(folder / "tensorboard" / "head-0001") == {"learning_rate", "dropout"}
    again = sweep("two")
    assert {stage["status"] for stage in again["stages"]} == {"hit"}
    assert again["heads"] == told["heads"]
    assert finished.num_passed() == 0


def hparams_of(folder: Path) -> set[str]:
    """Return the names of the settings that TensorBoard's HParams page shows of a run."""
    from tensorboard.plugins.hparams import plugin_data_pb2

    names: set[str] = set()
    for file in folder.glob("events.out.tfevents.*"):
        for record in tf.data.TFRecordDataset(str(file)):
            for value in tf.compat.v1.Event.FromString(record.numpy()).summary.value:
                if value.metadata.plugin_data.plugin_name == "hparams":
                    content = value.metadata.plugin_data.content
                    data = plugin_data_pb2.HParamsPluginData.FromString(content)
                    names |= set(data.session_start_info.hparams)
    return names
