"""Pictures are drawn for any data, without a warning, and show what they should."""

import io
import math
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from PIL import Image

from headstart.config import EvaluationConfig
from headstart.tasks.evaluation.figures import (
    confusion_excerpt,
    confusion_png,
    curves_png,
    curves_svg,
    reliability_svg,
)
from headstart.tasks.evaluation.metrics import SplitMetrics, evaluate
from headstart.tasks.head.epochs import EpochFigures

ODD_NAMES = ("$x_{", "蒲公英 🌻", "<b>&amp;", "long " * 60, "line\nbreak", "")


def judge(labels: Sequence[int], predicted: Sequence[int], names: Sequence[str]) -> SplitMetrics:
    logits = 4 * np.eye(len(names), dtype=np.float32)[np.array(predicted, int)]
    return evaluate(logits, np.array(labels, np.int32), names, EvaluationConfig())


def history(num_epochs: int) -> list[EpochFigures]:
    return [
        EpochFigures(n, 1 / n, 1 - 0.5 / n, 1.2 / n, 1 - 0.6 / n, 1e-3, 0.5)
        for n in range(1, num_epochs + 1)
    ]


def image_of(png: bytes) -> Image.Image:
    with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
        return image.convert("RGB")


def texts_of(svg: bytes) -> list[str]:
    return [
        "".join(node.itertext()).strip()
        for node in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    ]


def test_curves_show_both_splits_and_the_epoch_kept() -> None:
    texts = texts_of(curves_svg(history(5), best_epoch=3))
    assert [texts.count(word) for word in ("Loss", "Accuracy", "train", "val", "epoch kept")] == [
        1,
        1,
        2,
        2,
        2,
    ]
    assert image_of(curves_png(history(5), best_epoch=3)).width > 1000


def test_curves_without_a_val_split_do_not_mention_it() -> None:
    figures = [EpochFigures(n, 1 / n, None, None, None, 1e-3, 0.5) for n in (1, 2)]
    texts = texts_of(curves_svg(figures))
    assert (texts.count("train"), texts.count("val"), texts.count("epoch kept")) == (1, 0, 0)


@pytest.mark.parametrize(
    "figures",
    [
        [],
        history(1),
        [EpochFigures(1, math.nan, None, math.inf, None, 1e-3, 0.5)],
        [EpochFigures(1, 1e30, 0.5, 2.0, 0.5, 1e-3, 0.5), *history(2)[1:]],
    ],
    ids=["none", "one", "not finite", "huge"],
)
def test_curves_of_unusual_histories_are_drawn(figures: list[EpochFigures]) -> None:
    assert image_of(curves_png(figures)).size == image_of(curves_png(history(9))).size
    assert curves_svg(figures).startswith(b"<svg")


def test_an_svg_takes_the_page_colours_and_fetches_nothing() -> None:
    svg = curves_svg(history(3)).decode()
    assert "currentColor" in svg
    assert "prefers-color-scheme:dark" in svg
    assert "<metadata" not in svg
    assert 'href="http' not in svg
    assert curves_svg(history(3)).decode() == svg


def test_the_reliability_diagram_has_a_bar_for_each_bin_with_images() -> None:
    metrics = judge([0, 1, 1], [0, 1, 0], ("a", "b"))
    drawn = reliability_svg(metrics).decode()
    assert sum(one.count > 0 for one in metrics.calibration) == 1
    empty = reliability_svg(judge([], [], ("a", "b"))).decode()
    assert drawn.count("clip-path") > empty.count("clip-path")


def test_a_confusion_matrix_is_blue_where_right_and_red_where_wrong() -> None:
    image = image_of(confusion_png(judge([0, 1], [0, 0], ("a", "b"))))
    colors = {color for _, color in image.getcolors(image.width * image.height) or []}
    assert (50, 122, 204) in colors  # RIGHT_RGB at a share of 1
    assert (214, 94, 33) in colors  # WRONG_RGB at a share of 1


def test_odd_class_names_are_drawn_without_a_warning() -> None:
    image = image_of(confusion_png(judge(range(6), range(6), ODD_NAMES)))
    assert max(image.size) < 1500


@pytest.mark.parametrize("num_classes", [1, 2])
def test_tiny_and_empty_confusion_matrices_are_drawn(num_classes: int) -> None:
    names = ("a", "b")[:num_classes]
    assert image_of(confusion_png(judge([], [], names))).width > 100
    assert image_of(confusion_png(judge([0], [0], names))).width > 100


def test_an_excerpt_of_few_classes_is_the_whole_matrix() -> None:
    excerpt = confusion_excerpt(judge([0, 1, 1, 1], [0, 1, 0, 0], "abc"))
    assert excerpt.classes == [0, 1, 2]
    assert excerpt.counts.tolist() == [[1, 0, 0], [2, 1, 0], [0, 0, 0]]
    assert excerpt.shares.round(3).tolist() == [[1, 0, 0], [0.667, 0.333, 0], [0, 0, 0]]
    assert not excerpt.has_others


def test_an_excerpt_of_many_classes_holds_the_worst_and_counts_the_others() -> None:
    # Classes 3 and 1 have two errors each either way, 0 and 4 one each.
    metrics = judge([0, 1, 3, 3, 4, 4, 2], [3, 3, 1, 1, 4, 1, 2], "abcde")
    excerpt = confusion_excerpt(metrics, max_classes=2)
    assert excerpt.classes == [1, 3]
    assert excerpt.counts.tolist() == [[0, 1, 0], [2, 0, 0]]
    wider = confusion_excerpt(metrics, max_classes=3)
    assert wider.classes == [0, 1, 3]
    assert wider.has_others
    assert wider.counts.sum() == sum(metrics.per_class[index].support for index in wider.classes)


def test_a_thousand_classes_stay_legible() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 1000, 3000)
    predicted = np.where(rng.random(3000) < 0.5, labels, rng.integers(0, 1000, 3000))
    metrics = judge(labels.tolist(), predicted.tolist(), [f"class {n}" for n in range(1000)])
    assert len(confusion_excerpt(metrics).classes) == 30
    assert max(image_of(confusion_png(metrics)).size) < 2500


def test_the_user_matplotlibrc_is_set_aside_and_kept(tmp_path: Path) -> None:
    with matplotlib.rc_context({"text.usetex": True, "axes.facecolor": "black"}):
        image = image_of(curves_png(history(2)))
        assert matplotlib.rcParams["text.usetex"] is True
    assert image.getpixel((image.width // 2, image.height // 2)) == (255, 255, 255)
