"""How a run's figures are ranked and written."""

import pytest

from headstart.tasks.dataset.printable import printable
from headstart.tasks.evaluation.metrics import SplitMetrics
from headstart.tasks.evaluation.report_content import (
    headline_split,
    percent,
    title_of,
    weakest_first,
)
from tests.judged import EMPTY, FLAWED, judge, report_of


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        ({"train": FLAWED, "val": FLAWED, "test": FLAWED}, "test"),
        ({"train": FLAWED, "val": FLAWED, "test": EMPTY}, "val"),
        ({"train": FLAWED}, "train"),
        ({"val": EMPTY}, None),
        ({}, None),
    ],
)
def test_a_run_is_judged_by_test_before_val(
    splits: dict[str, SplitMetrics], expected: str | None
) -> None:
    assert headline_split(report_of(**splits)) == expected


def test_undefined_classes_come_last_among_the_weakest() -> None:
    metrics = judge([0, 0, 1], [0, 0, 0])
    assert [one.name for one in weakest_first(metrics)] == ["dog", "cat", "owl"]


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (None, "–"),  # noqa: RUF001
        (0.0, "0.0 %"),
        (0.0004, "< 0.1 %"),
        (0.92344, "92.3 %"),
        (0.9994, "99.9 %"),
        (0.99951, "> 99.9 %"),
        (1.0, "100.0 %"),
    ],
)
def test_percentages_never_round_to_perfection(share: float | None, text: str) -> None:
    assert percent(share) == text


@pytest.mark.parametrize(
    ("name", "title"),
    [("accuracy", "Accuracy"), ("f1_micro", "F1 micro"), ("mae", "MAE"), ("r2", "R²")],
)
def test_figures_are_headed_as_people_write_them(name: str, title: str) -> None:
    assert title_of(name) == title


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("plain rosé 蒲公英 👩‍🌾", "plain rosé 蒲公英 👩‍🌾"),
        ("a\nb\x00", "a\\nb\\x00"),
        ("caf\udce9", "caf\\xe9"),
        ("\ud800", "\\ud800"),
        ("gpj.\u202eexe", "gpj.\\u202eexe"),
    ],
)
def test_odd_characters_are_written_as_escapes(text: str, written: str) -> None:
    assert printable(text) == written
