"""What each command takes in memory, at its peak, for images made to take much."""

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from headstart.cli import app
from headstart.tasks.finetuning.memory import start_measuring
from tests.pipeline import QUICK, Pipeline

LARGEST_BYTES = 1_000_000_000
"""The photo of 24 megapixels takes 7 bytes a pixel while it is decoded (Pillow's 4, the array's 3)
and what is made of it as many again: 340 MB, beside other images in other threads; 650 MB were
seen. The TIFF read whole takes 3 GB, the tall images padded before they are resized 770 MB each."""
NUM_TALL = 4


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a TIFF of 3 GB, a photo of 24 megapixels and images of 64 x 16,000."""
    folder = tmp_path_factory.mktemp("hostile") / "red"
    folder.mkdir()
    with (folder / "large.tif").open("wb") as stream:
        entries = [(256, 30_000), (257, 33_000), (258, 8), (259, 1), (262, 1), (273, 200)]
        entries += [(277, 1), (278, 33_000), (279, 990_000_000)]
        stream.write(b"II*\0" + struct.pack("<IH", 8, len(entries)))
        stream.writelines(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
        stream.truncate(3_000_000_000)
    Image.new("RGB", (6_000, 4_000), (200, 40, 40)).save(folder / "photo.png", compress_level=1)
    for number in range(NUM_TALL):
        Image.new("RGB", (64, 16_000), (200, number, 40)).save(folder / f"tall{number}.png")
    return folder


@pytest.fixture
def images(finished: Pipeline, hostile: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("HEADSTART_STORE", str(finished.store.root))
    links = [finished.images / "red" / path.name for path in hostile.iterdir()]
    for link in links:
        link.hardlink_to(hostile / link.name)
    yield finished.images
    for link in links:
        link.unlink()


def settings(*more: str) -> list[str]:
    return [part for one in (*QUICK, "views.resize=pad", *more) for part in ("--set", one)]


@pytest.mark.timeout(900)  # nine commands, one photo of 24 megapixels each
def test_no_command_takes_more_than_its_largest_usable_image_needs(
    images: Path, finished: Pipeline, tmp_path: Path
) -> None:
    backbone = f"backbone.name={finished.backbone}"
    run = str(tmp_path / "run")
    commands = {
        "plan": ["plan", str(images), *settings(backbone)],
        "train": ["train", str(images), *settings(backbone), "--views", "1", "--out", run],
        "why": ["why", str(images), *settings(backbone)],
        "views": ["views", str(images), "--out", str(tmp_path / "views")],
        "predict": ["predict", run, str(images)],
        "evaluate": ["evaluate", run, str(images)],
        "explain": ["explain", run, str(images), "--out", str(tmp_path / "explained")],
        "audit": ["audit", str(images), "--set", backbone, "--out", str(tmp_path / "audit")],
        "rank": ["rank", str(images), "--backbones", str(finished.backbone), "--out",
                 str(tmp_path / "rank")],
    }  # fmt: skip
    peaks = {}
    for name, arguments in commands.items():
        used = start_measuring()
        result = CliRunner().invoke(app, arguments)
        peak = used()
        assert result.exit_code in (0, 1), (name, result.output, result.exception)
        if peak is None:
            pytest.skip("the system does not tell a process's peak")
        peaks[name] = peak
    assert {name: peak for name, peak in peaks.items() if peak > LARGEST_BYTES} == {}, peaks
