"""LiteRT files of fewer bits: their size, their proof and what they cost."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.errors import ExportError
from headstart.tasks.export.joining import join
from headstart.tasks.export.litert import write_litert
from headstart.tasks.export.model_files import freeze
from headstart.tasks.export.quantised import HeldOut, judge_quantised
from headstart.tasks.targets.choice import TARGETS
from headstart.tasks.targets.target import NO_FIT, Fit
from tests.exported import SIZE, export_tiny, image_of, tiny_extractor, tiny_head
from tests.pipeline import Pipeline


def test_quantised_files_are_judged_on_val_and_the_loss_is_in_the_report(
    finished: Pipeline,
) -> None:
    settings = "export.formats=[litert_float16, litert_int8]"
    summary = finished.run(settings, "export.num_calibration_images=5")
    folder = Path(summary.run_dir)
    (made,) = (one for one in finished.store.manifests("export") if one.get("losses"))
    assert made["losses"].keys() == {"litert_float16", "litert_int8"}
    for loss in made["losses"].values():
        assert loss["split"] == "val"
        assert loss["num_images"] == summary.metrics["val"]["num_images"]
        assert loss["float_accuracy"] == summary.metrics["val"]["accuracy"]
        assert loss["accuracy"] >= loss["float_accuracy"] - 0.1
    page = Path(summary.report).read_text(encoding="utf-8")
    assert "Exported files" in page
    assert f"{made['losses']['litert_int8']['accuracy']:.4f} on" in page
    assert {path.name for path in folder.glob("*.tflite")} == {
        "model_float16.tflite",
        "model_int8.tflite",
    }
    # Views that the garbage collection took are made again for the calibration.
    from headstart.tasks.store.garbage import Criteria, collect_garbage

    collect_garbage(finished.store, Criteria(views=True))
    again = finished.run(settings, "export.num_calibration_images=6")
    assert again.stages[-1].status == "miss"


@pytest.mark.parametrize("kind", ["labels", "number"])
def test_files_for_labels_and_numbers_are_judged_by_their_own_figures(
    tmp_path: Path, kind: Any
) -> None:
    fit = Fit(offset=(100.0, 0.0, 5.0, -3.0), scale=(10.0, 1.0, 2.0, 0.5))
    card = export_tiny(tmp_path, ("litert_float16",), target=kind,
                       fit=fit if kind == "number" else NO_FIT)  # fmt: skip
    views = np.stack([image_of(SIZE, SIZE, seed) for seed in range(9)])
    rows = tiny_extractor()(views.astype(np.float32)).numpy()
    logits = tiny_head()(rows, training=False).numpy()
    truth = TARGETS[kind].answers(logits, card.fit)
    noise = np.random.default_rng(0).normal(size=truth.shape)
    targets = truth + noise * fit.scale if kind == "number" else (logits + noise > 0).astype(int)
    held_out = HeldOut("val", views, rows, targets)
    loss = judge_quantised(tmp_path, "litert_float16", tiny_head(), held_out, card)
    assert loss is not None
    assert loss.metric == {"labels": "mAP", "number": "MAE"}[kind]
    assert loss.accuracy == pytest.approx(loss.float_accuracy, rel=0.05)
    assert abs(loss.lost) < 0.05
    assert loss.lost_in_words.endswith("% of error" if kind == "number" else "points")
    nothing = HeldOut("val", views, rows, np.zeros((9, 4), int))
    if kind == "labels":
        assert judge_quantised(tmp_path, "litert_float16", tiny_head(), nothing, card) is None


def test_numbers_too_large_for_halves_are_refused(tmp_path: Path) -> None:
    for offset, scale in ((1e9, 1e8), (1001.3, 1.0)):
        fit = Fit(offset=(offset,) * 4, scale=(scale,) * 4)
        with pytest.raises(ExportError, match="litert_float16 cannot hold") as caught:
            export_tiny(tmp_path, ("litert_float16",), target="number", fit=fit)
        assert "export.formats" in (caught.value.next_step or "")


def test_integers_need_views_to_be_calibrated_with(tmp_path: Path) -> None:
    network = freeze(join(tiny_extractor(), tiny_head(), SIZE, "squash"))
    with pytest.raises(ExportError, match="calibration"):
        write_litert("litert_int8", network, tmp_path / "model.tflite")
    views = np.zeros((2, SIZE, SIZE, 3), np.uint8)
    write_litert("litert_int8", network, tmp_path / "model.tflite", views)
    assert b"TFL3" in (tmp_path / "model.tflite").read_bytes()[:8]
