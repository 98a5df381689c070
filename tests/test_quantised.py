"""LiteRT files of fewer bits: their size, their proof and what they cost."""

from pathlib import Path

import numpy as np
import pytest

from headstart.errors import ExportError
from headstart.tasks.export.joining import join
from headstart.tasks.export.litert import write_litert
from headstart.tasks.export.model_files import freeze
from tests.exported import SIZE, tiny_extractor, tiny_head
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


def test_integers_need_views_to_be_calibrated_with(tmp_path: Path) -> None:
    network = freeze(join(tiny_extractor(), tiny_head(), SIZE, "squash"))
    with pytest.raises(ExportError, match="calibrated"):
        write_litert("litert_int8", network, tmp_path / "model.tflite")
    views = np.zeros((2, SIZE, SIZE, 3), np.uint8)
    write_litert("litert_int8", network, tmp_path / "model.tflite", views)
    assert b"TFL3" in (tmp_path / "model.tflite").read_bytes()[:8]
