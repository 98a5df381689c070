"""The page holds what it should, whatever the data set calls its classes and files."""

import base64
import io
import os
import re
import stat
from dataclasses import replace
from datetime import datetime
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.config import DatasetConfig, EvaluationConfig, TransferConfig, load_config
from headstart.errors import RecordError
from headstart.tasks.evaluation.metrics import evaluate, top_losses
from headstart.tasks.evaluation.report import (
    data_uri,
    markdown_summary,
    per_class_rows,
    write_report,
)
from headstart.tasks.evaluation.report_content import (
    Command,
    DatasetSummary,
    EpochFigures,
    HardImage,
    LeftOut,
    Report,
)
from headstart.tasks.running.stage import Outcome

NAMES = ("cat", "<script>alert(1)</script>", "蒲公英 | *owl*")
LOGITS = np.array([[4, 0, 0], [4, 0, 0], [0, 4, 0], [0, 0, 4], [0, 0, 4], [0, 3, 4]], np.float32)
LABELS = np.array([0, 0, 1, 2, 2, 1], np.int32)
VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """Checks that tags nest, and collects what a test wants to know."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "images"
    folder.mkdir()
    paths = [folder / f"{index} <i>&amp;.png" for index in range(6)]
    for index, path in enumerate(paths):
        Image.new("RGB", (400, 200), (40 * index, 90, 30)).save(path)
    return paths


@pytest.fixture
def report(pictures: list[Path]) -> Report:
    config = EvaluationConfig(top_k=2)
    return Report(
        title="flowers & <friends>",
        created=datetime(2024, 5, 6, 7, 8),
        class_names=NAMES,
        metrics={"val": evaluate(LOGITS, LABELS, NAMES, config)},
        dataset=DatasetSummary(
            source="pictures",
            counts={"train": {NAMES[0]: 1234}, "val": dict.fromkeys(NAMES, 2)},
            left_out=(LeftOut("a<b>.jpg", "the file is empty (0 bytes)"),),
            notes=("1 duplicate was kept in train.",),
        ),
        history=[
            EpochFigures(1, 1.0, 0.5, 1.1, 0.4, 1e-3, 0.25),
            EpochFigures(2, 0.5, 0.8, 0.6, 0.7, 5e-4, 0.25),
        ],
        best_epoch=2,
        selected_on="val",
        hard_images=[
            HardImage(pictures[one.position], "val", one)
            for one in top_losses(LOGITS, LABELS, config)
        ],
        stages=(
            Outcome(name="bottlenecks", status="hit", seconds=0.02, rows=3119, seconds_saved=28.0),
            Outcome(name="head", status="miss", seconds=3.25, rows=2499, rows_computed=2499),
        ),
        commands=(Command("Follow training", "tensorboard --logdir 'a b'"),),
        config=TransferConfig(dataset=DatasetConfig(images=Path("pictures"))).model_dump(
            mode="json"
        ),
        versions={"headstart": "0.1.0"},
    )


def page_of(folder: Path, report: Report) -> Page:
    return Page(write_report(folder, report).read_text(encoding="utf-8"))


def test_the_page_says_what_there_is_to_say(tmp_path: Path, report: Report) -> None:
    path = write_report(tmp_path / "new" / "folder", report)
    assert path == tmp_path / "new" / "folder" / "report.html"
    text = " ".join(Page(path.read_text(encoding="utf-8")).text.split())
    for part in (
        "flowers & <friends>",
        "2024-05-06 07:08",
        "83.3 % accuracy on 6 val images",  # 5 of 6
        "95 % interval: 50.0 % to 100.0 %",
        "Top-2 accuracy100.0 %",
        "The val split also chose which epoch was kept",
        "What to do next",
        "1 file was left out",
        "The weights of epoch 2 of 2 were kept. Trained in 500 ms.",
        "the file is empty (0 bytes)",
        "1 duplicate was kept in train.",
        "1,234",
        "bottleneckshit20 ms3,119028.0 s",
        "headmiss3.2 s2,4992,499–",  # noqa: RUF001
        "tensorboard --logdir 'a b'",
        "optimizer: adam",
        "headstart 0.1.0",
    ):
        assert part in text
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]


def test_the_page_is_one_file_that_fetches_and_runs_nothing(tmp_path: Path, report: Report) -> None:
    page = page_of(tmp_path, report)
    addresses = [
        value
        for _, attributes in page.tags
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "action", "poster")
    ]
    assert len(addresses) > 6
    assert all(address and address.startswith("data:") for address in addresses)
    assert page.all("script") == []
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    policies = [one["content"] for one in page.all("meta") if "http-equiv" in one]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_names_are_text_and_never_markup(tmp_path: Path, report: Report) -> None:
    raw = write_report(tmp_path, report).read_text(encoding="utf-8")
    assert "<script" not in raw
    assert raw.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 5
    assert "a&lt;b&gt;.jpg" in raw
    assert "5 &lt;i&gt;&amp;amp;.png" in raw


def test_the_page_is_accessible(tmp_path: Path, report: Report) -> None:
    page = page_of(tmp_path, report)
    assert page.all("html")[0]["lang"] == "en"
    assert all(one.get("alt") for one in page.all("img"))
    assert all(one.get("scope") in ("row", "col") for one in page.all("th"))
    identifiers = [one["id"] for _, one in page.tags if "id" in one]
    assert len(identifiers) == len(set(identifiers))
    assert {one["aria-labelledby"] for one in page.all("section")} == set(identifiers)


def test_thumbnails_are_small_jpegs_of_the_worst_images(tmp_path: Path, report: Report) -> None:
    page = page_of(tmp_path, report)
    prefix = "data:image/jpeg;base64,"
    uris = [src for one in page.all("img") if (src := one["src"] or "").startswith(prefix)]
    assert len(uris) == 6
    with Image.open(io.BytesIO(base64.b64decode(uris[0].removeprefix(prefix)))) as worst:
        assert (worst.format, worst.size) == ("JPEG", (160, 80))
        red, green, blue = worst.convert("RGB").getpixel((80, 40))
    # Row 5 is the only mistake.
    assert np.allclose((red, green, blue), (200, 90, 30), atol=3)


def test_a_picture_that_cannot_be_shown_leaves_its_path_and_the_reason(
    tmp_path: Path, report: Report, pictures: list[Path]
) -> None:
    pictures[5].unlink()
    pictures[1].write_bytes(b"")
    pictures[0].unlink()
    os.mkfifo(pictures[0])
    page = page_of(tmp_path, report)
    assert page.text.count("cannot be shown: the file is gone") == 2
    assert page.text.count("cannot be shown: the file is empty (0 bytes)") == 1
    assert all(path.name in page.text for path in pictures)


def test_pictures_beyond_the_pixel_limit_are_not_decoded(tmp_path: Path, report: Report) -> None:
    page = page_of(tmp_path, replace(report, max_pixels=400 * 200 - 1))
    assert page.text.count("cannot be shown: 400 x 200 = 80,000 pixels") == 6


def test_undecodable_file_names_are_written(tmp_path: Path, report: Report) -> None:
    folder = tmp_path / "images"
    path = folder / os.fsdecode(b"caf\xe9\n.png")
    Image.new("RGB", (8, 8)).save(path)
    hard = [replace(report.hard_images[0], path=path), *report.hard_images[1:]]
    page = page_of(tmp_path, replace(report, hard_images=hard))
    assert "caf\\xe9\\n.png" in page.text
    assert "cannot be shown" not in page.text


def test_a_bare_report_is_written(tmp_path: Path) -> None:
    empty = evaluate(
        np.empty((0, 1), np.float32), np.empty(0, np.int32), ("only",), EvaluationConfig()
    )
    report = Report("bare", datetime(2024, 1, 1), ("only",), {}, DatasetSummary("images", {}))
    for bare in (report, replace(report, metrics={"val": empty})):
        assert "No split has images" in page_of(tmp_path, bare).text
        assert markdown_summary(bare).startswith("# bare\n")


def test_undefined_figures_are_dashes(tmp_path: Path, report: Report) -> None:
    metrics = evaluate(LOGITS[:2], LABELS[:2], NAMES, EvaluationConfig())
    page = page_of(tmp_path, replace(report, metrics={"val": metrics}))
    classes = page.text[page.text.index("Classes, weakest first") :]
    assert classes[classes.index(NAMES[2]) :].split()[2:6] == ["*owl*0–", "–", "–", "Highest"]  # noqa: RUF001
    rows = per_class_rows(metrics)
    assert rows[0] == {
        "class": "cat", "images": 2, "precision": "100.0 %", "recall": "100.0 %", "F1": "100.0 %",
    }  # fmt: skip
    assert rows[2]["precision"] == rows[2]["recall"] == rows[2]["F1"] == "–"  # noqa: RUF001


def test_several_splits_are_compared_and_test_is_the_headline(
    tmp_path: Path, report: Report
) -> None:
    test = evaluate(LOGITS[:4], LABELS[:4], NAMES, EvaluationConfig())
    both = replace(report, metrics=report.metrics | {"test": test})
    text = " ".join(page_of(tmp_path, both).text.split())
    assert "100.0 % accuracy on 4 test images" in text
    assert "val683.3 %50.0 % to 100.0 % (95 %)100.0 % (k = 2 of 3)" in text
    assert "test4100.0 %51.0 % to 100.0 % (95 %)100.0 % (k = 3 of 3)" in text
    assert "optimistic; the test figures are not" in text


def test_a_thousand_classes_give_a_page_of_bounded_size(tmp_path: Path, report: Report) -> None:
    rng = np.random.default_rng(0)
    names = [f"class {index} " + "long " * (index % 5) for index in range(1000)]
    metrics = evaluate(
        rng.normal(size=(2000, 1000)).astype(np.float32),
        rng.integers(0, 1000, 2000).astype(np.int32),
        names,
        EvaluationConfig(),
    )
    path = write_report(
        tmp_path, replace(report, class_names=names, metrics={"val": metrics}, hard_images=())
    )
    assert path.stat().st_size < 1_000_000
    assert "the 30 classes with the most errors of 1,000" in path.read_text(encoding="utf-8")


def test_of_many_files_and_notes_the_rest_is_counted(tmp_path: Path, report: Report) -> None:
    left_out = [LeftOut(f"{index}.jpg", "empty") for index in range(250)]
    notes = [f"note {index};" for index in range(201)]
    dataset = replace(report.dataset, left_out=left_out, notes=notes)
    text = page_of(tmp_path, replace(report, dataset=dataset)).text
    assert "Left out: 250 files" in text
    assert "199.jpg" in text
    assert "200.jpg" not in text
    assert "and 50 more, in left_out.json." in text
    assert "note 199;" in text
    assert "note 200;" not in text
    assert "and 1 more, in remarks.json." in text


def test_a_report_replaces_the_one_before(tmp_path: Path, report: Report) -> None:
    first = write_report(tmp_path, report)
    second = write_report(tmp_path, replace(report, title="second"))
    assert first == second
    assert "<h1>second</h1>" in second.read_text(encoding="utf-8")
    assert stat.S_ISREG(second.stat().st_mode)


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path, report: Report) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RecordError, match=r"report\.html"):
        write_report(tmp_path / "file" / "below", report)


def test_the_configuration_can_be_pasted_into_a_file(tmp_path: Path, report: Report) -> None:
    raw = write_report(tmp_path, report).read_text(encoding="utf-8")
    found = re.search(r"<summary>Configuration</summary><pre[^>]*>(.*?)</pre>", raw, re.DOTALL)
    assert found
    file = tmp_path / "config.yaml"
    file.write_text(unescape(found[1]), encoding="utf-8")
    assert load_config(file=file).model_dump(mode="json") == report.config


def test_the_markdown_summary(report: Report) -> None:
    text = markdown_summary(report)
    assert text.startswith("# flowers \\& \\<friends\\>\n\n**83.3 %** accuracy on 6 val images")
    assert "| val | 6 | 83.3 % | 50.0 % to 100.0 % (95 %) | 100.0 % (k = 2 of 3) |" in text
    assert "> The val split also chose which epoch was kept" in text
    assert "\n1. Compare “\\<script\\>alert(1)\\</script\\>” with “蒲公英 \\| \\*owl\\*”" in text
    assert "\n    tensorboard --logdir 'a b'\n" in text


def test_a_data_uri_holds_its_bytes() -> None:
    assert data_uri(b"hello", "image/png") == "data:image/png;base64,aGVsbG8="
