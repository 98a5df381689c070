"""The bench of exported files: figures of each engine, and what follows from them."""

import io
import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from headstart.cli import app
from headstart.errors import ExportError
from headstart.printing import print_bench
from headstart.tasks.benching.bench import Bench, Figures, advise, bench, open_held_out
from headstart.tasks.export.model_files import read_card
from tests.exported import export_tiny
from tests.pipeline import Pipeline


def figures(name: str, p50_ms: float, accuracy: float | None, batched: float) -> Figures:
    return Figures(
        format="onnx",
        engine=name,
        file="model.onnx",
        p50_ms=p50_ms,
        p99_ms=p50_ms,
        images_per_s={"1": 1000 / p50_ms, "32": batched},
        start_up_s=1.0,
        size_bytes=2_000_000,
        peak_memory_bytes=1,
        accuracy=accuracy,
        num_images=100,
    )


def test_the_fastest_that_loses_no_accuracy_is_advised() -> None:
    measured = [figures("quick", 1.0, 0.90, 900), figures("right", 2.0, 0.95, 100)]
    told = advise([*measured, figures("batched", 3.0, 0.948, 500)])
    assert told.startswith("deploy model.onnx by right: 2.0 ms per image, 2.0 MB, accuracy 0.9500")
    assert told.endswith("for batches of 32 model.onnx by batched, 500 images/s")
    unknown = advise([figures("quick", 1.0, None, 900), figures("right", 2.0, None, 100)])
    assert "by quick" in unknown
    assert "accuracy not measured" in unknown


def test_labels_and_numbers_are_advised_by_their_own_figures() -> None:
    def told(metric: str, *values: float) -> str:
        return advise(
            [
                figures(f"engine{place}", 1.0 + place, None, 100).model_copy(
                    update={"metric": metric, "value": value}
                )
                for place, value in enumerate(values)
            ]
        )

    assert "by engine1: 2.0 ms" in told("MAE", 5.2, 5.0)  # the quicker one errs by 4 % more
    assert "MAE 5.02 where the best has 5" in told("MAE", 5.02, 5.0)
    assert "by engine1" in told("mAP", 0.80, 0.82)
    assert "mAP 0.8190 where the best has 0.8200" in told("mAP", 0.819, 0.82)
    assert "MAE not measured" in advise(
        [figures("one", 1.0, None, 1).model_copy(update={"metric": "MAE"})]
    )


def test_a_run_is_measured_in_each_engine_that_reads_its_files(finished: Pipeline) -> None:
    summary = finished.run("export.formats=[onnx]")
    folder = Path(summary.run_dir)
    (folder / "model.keras").unlink()  # TensorFlow's import would take longer than the test
    result = CliRunner().invoke(app, ["bench", str(folder), "--seconds", "0.1", "--json"])
    assert result.exit_code == 0, (result.output, result.exception)
    told = json.loads(result.stdout)
    assert {one["engine"] for one in told["figures"]} == {"onnxruntime", "openvino"}
    assert "keras" in told["missing"]
    for one in told["figures"]:
        assert one["accuracy"] == summary.metrics[told["split"]]["accuracy"]
        assert one["num_images"] == summary.metrics[told["split"]]["num_images"]
        assert 0 < one["p50_ms"] <= one["p99_ms"]
        assert one["images_per_s"].keys() == {"1", "32"}
        assert one["start_up_s"] * 1000 > one["p50_ms"]
        assert one["size_bytes"] == (folder / "model.onnx").stat().st_size
        assert one["peak_memory_bytes"] > 10**7
    assert told["advice"].startswith("deploy model.onnx by ")
    assert (folder / "bench.svg").read_text().count("model.onnx") >= 1


def test_the_table_cuts_no_figure_off_in_a_narrow_terminal() -> None:
    shown = io.StringIO()
    made = Bench(
        run_dir="run",
        split="val",
        figures=(figures("onnxruntime", 12.345, 0.9, 1234.5),),
        missing=("keras",),
        failed={"model.xml by openvino": "exit code 1"},
        advice="deploy it",
    )
    print_bench(Console(file=shown, width=40), made)
    rows = [
        line.split() for line in shown.getvalue().splitlines() if line.startswith("model.onnx ")
    ]
    assert all(row[:2] == ["model.onnx", "onnxruntime"] for row in rows)
    figures_told = "12.35 12.35 81.0 1,234.5 1.0 2.0 0 0.9000"
    assert [figure for row in rows for figure in row[2:]] == figures_told.split()
    assert "model.xml by openvino could not be run: exit code 1" in shown.getvalue()
    assert shown.getvalue().rstrip().endswith("deploy it")


def test_without_its_images_a_model_is_timed_on_noise(tmp_path: Path) -> None:
    export_tiny(tmp_path, ("onnx",))
    held_out = open_held_out(tmp_path, read_card(tmp_path / "model.onnx"), 10)
    assert (held_out.split, held_out.labels) == (None, None)
    assert held_out.views.shape[1:] == (24, 24, 3)


def test_files_that_cannot_be_run_are_named(tmp_path: Path) -> None:
    made, broken = tmp_path / "made", tmp_path / "broken"
    made.mkdir()
    broken.mkdir()
    export_tiny(made, ("onnx",))
    shutil.copy(made / "model.onnx", broken)
    data = (broken / "model.onnx").read_bytes()
    (broken / "model.onnx").write_bytes(data.replace(b"Conv", b"Cnov"))
    with pytest.raises(ExportError, match=r"model\.onnx by onnxruntime: exit code 1"):
        bench(broken, seconds=0.0)
    with pytest.raises(ExportError, match="none of"):
        bench(tmp_path)
