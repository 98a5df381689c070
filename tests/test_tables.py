"""Every terminal table, at every width: nothing cut off, no line too long, no column of slivers."""

import ast
import io
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from headstart.commands.audit import print_audit
from headstart.commands.rank import print_ranking
from headstart.commands.runs import _print_pairs, _print_runs
from headstart.commands.survey import print_survey
from headstart.commands.sweep import print_heads
from headstart.printing import (
    print_backbones,
    print_cuts,
    print_holdings,
    print_judgement,
    print_plan,
)
from headstart.tables import GAP, parted, print_table
from headstart.tasks.auditing.findings import KINDS
from headstart.tasks.progress import plain_console
from headstart.tasks.ranking.report import TITLES
from headstart.tasks.sweeping.stage import SweptHead

ROOT = Path(__file__).parent.parent
WIDTHS = (60, 80, 120)
RUN = "2026-11-30-flowers-efficientnet_lite0"
LONG = "a_backbone_with_a_rather_long_name_as_files_of_users_have"


class Tables(Console):
    """Prints tables alone: other lines hold paths, which terminals wrap and people copy."""

    def print(self, *objects: Any, **options: Any) -> None:
        if objects and isinstance(objects[0], Table):
            for column in objects[0].columns:
                texts = [str(column.header), *map(str, column.cells)]
                assert (column.width or 0) >= min(3, max(map(len, texts)))
            super().print(*objects, **options)


def rank(console: Console) -> None:
    scores = dict.fromkeys(TITLES, 0.123456)
    one = {"cut": "conv5_block3_out", "accuracy": 0.9876, "scores": scores}
    names = ("efficientnet_lite0", LONG, "vgg16")
    metrics = {
        "candidates": [{"backbone": name, **one} for name in names],
        "agreement": dict.fromkeys(TITLES, -0.4321),
        "pick": "vgg16", "judged": "val", "ranking_s": 1.0, "uncached_s": 2.0,
        "ranked_from": "views", "seconds_saved": 1.0, "baseline_accuracy": None, "sources": [],
        "warnings": [], "metric": "accuracy", "figure": "accuracy",
    }  # fmt: skip
    print_ranking(console, SimpleNamespace(metrics=metrics, report="r", seconds=1.0))  # type: ignore[arg-type]


def survey(console: Console) -> None:
    anatomy = {
        "name": LONG, "num_parameters": 123_456_789, "flops": 9.9e12, "depth": 1234,
        "inference_bytes": 10**9, "training_bytes": 10**10, "cuts": [{"bytes_per_image": 10**6}],
    }  # fmt: skip
    points = [{"images_per_s": 12_345.6, "batch_size": 1024, "memory_bytes": 10**10}]
    told = {"anatomy": anatomy, "measurements": points, "metric": "accuracy", "accuracy": 0.5}
    metrics = {"backbones": [told]}
    summary = SimpleNamespace(metrics=metrics, report="r", table="t", cuts="c", seconds=1.0)
    print_survey(console, summary)  # type: ignore[arg-type]


def sweep(console: Console) -> None:
    settings = {
        "learning_rate": 0.0031622776601683794, "weight_decay": 0.31622776601683794,
        "hidden_units": (512, 256, 128), "dropout": 0.3, "label_smoothing": 0.05,
    }  # fmt: skip
    head = SweptHead(
        number=17, settings=settings, loss=0.12345, accuracy=0.98, best_epoch=17, num_epochs=25
    )
    print_heads(console, SimpleNamespace(heads=[head], sweep="s", best_config="b"))


def audit(console: Console) -> None:
    metrics = {"counts": dict.fromkeys(KINDS, 1234), "num_excluded": 1, "num_images": 2}
    summary = SimpleNamespace(metrics=metrics, report="r", labels="l", exclude="e", seconds=1.0)
    print_audit(console, summary)  # type: ignore[arg-type]


def plan(console: Console) -> None:
    stages = [
        SimpleNamespace(name=name, status="miss", rows=1_234_567, rows_missing=1_234_567,
                        num_bytes=1e12, seconds=1e5, reason="")
        for name in ("dataset", "bottlenecks")
    ]  # fmt: skip
    made = SimpleNamespace(
        dataset="d", stages=stages, images_per_s=None, bytes_needed=1, bytes_free=2, fits=True
    )
    print_plan(console, made)  # type: ignore[arg-type]


def holdings(console: Console) -> None:
    one = SimpleNamespace(
        kind="bottlenecks", runs=(RUN, "x"),
        what="efficientnet_lite0 at block6d_add, 3 augmented views of 224 pixels",
        num_rows=1_234_567, num_bytes=10**12, used_s=0.0,
    )  # fmt: skip
    print_holdings(console, [one])  # type: ignore[list-item]


def cuts(console: Console) -> None:
    cut = SimpleNamespace(
        name="block_17_depthwise_batch_normalisation", activation_shape=(112, 112, 1024),
        bytes_per_image=lambda: 10**8, flops_before=10**12, flops_after=10**12, speedup_limit=99.9,
    )  # fmt: skip
    backbone = SimpleNamespace(cuts=[cut, cut], name="x", image_size=224)
    print_cuts(console, backbone)  # type: ignore[arg-type]


def judgement(console: Console) -> None:
    import numpy as np

    from headstart.config import EvaluationConfig
    from headstart.tasks.evaluation.metrics import evaluate
    from headstart.tasks.export.judging import Judgement

    names = (LONG, "日本語" * 20)
    metrics = evaluate(
        np.eye(2, dtype=np.float32), np.arange(2, dtype=np.int32), names, EvaluationConfig()
    )
    print_judgement(console, Judgement("new", metrics, {}))


def runs(_: Console) -> None:
    line = SimpleNamespace(
        data="flower_photos_2026_of_the_garden", backbone=LONG, cut="conv5_block3_out",
        head="nearest_mean", accuracy_text="val 0.9273 (0.9021 to 0.9466)", status="finished",
        seconds=12_345.0, when=datetime(2026, 11, 30, tzinfo=UTC), name="2026-11-30-a-run",
        reason="",
    )  # fmt: skip
    _print_runs([(123, line)])  # type: ignore[list-item]


def pairs(_: Console) -> None:
    _print_pairs("setting", [("views.augmentations", [{"kind": "flip"}] * 9, LONG)])


PRINTED = [
    rank, survey, sweep, audit, plan, holdings, cuts, judgement, runs, pairs, print_backbones,
]  # fmt: skip


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("show", PRINTED, ids=lambda show: show.__name__)
def test_no_table_is_wider_than_the_terminal_or_breaks_a_figure(
    show: Callable[[Console], None], width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "headstart.tasks.backbones.natural_cuts.natural_cuts", lambda backbone: backbone.cuts
    )
    shown = io.StringIO()
    console = Tables(file=shown, width=width, markup=False, emoji=False, highlight=False)
    monkeypatch.setattr("headstart.commands.runs.plain_console", lambda **_: console)
    show(console)
    lines = shown.getvalue().splitlines()
    assert lines
    assert max(map(cell_len, lines)) <= width
    whole = {
        rank: ("0.9876", "0.1235", "-0.4321", *TITLES.values()),
        survey: ("123.46", "12,345.6 (1024)", "10,000", "images/s", "accuracy"),
        plan: ("1,234,567", "1,000,000.0", "100,000.0"),
        judgement: ("100.0 %", "precision"),
        holdings: (RUN, "1,234,567"),
        cuts: ("100,000.0", "1,000,000", "99.9x"),
    }
    for text in whole.get(show, ()):
        assert text in shown.getvalue()


def test_tables_are_made_in_one_place() -> None:
    made = [
        str(path.relative_to(ROOT))
        for folder in ("headstart", "flows", "tasks", "debug")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module == "rich.table"
    ]
    assert made == ["headstart/tables.py"]


@given(
    natural=st.lists(st.integers(1, 90), min_size=2, max_size=12),
    narrowest=st.integers(3, 90), num_keys=st.integers(0, 2), room=st.integers(40, 130),
)  # fmt: skip
def test_parts_hold_all_columns_within_the_room(
    natural: list[int], narrowest: int, num_keys: int, room: int
) -> None:
    num_keys = min(num_keys, len(natural) - 1)
    least = [min(width, narrowest) for width in natural]
    parts = list(parted(natural, least, num_keys, room))
    shown = [place for part in parts for place in part]
    assert set(shown) == set(range(len(natural)))
    for part in parts:
        assert sum(part.values()) + GAP * (len(part) - 1) <= room
        assert list(part)[:num_keys] == list(range(num_keys))
        assert all(width >= min(3, natural[place]) for place, width in part.items())


def test_what_fits_is_one_table_and_the_rest_follows_with_its_keys() -> None:
    rows = [["first", "1.0000", "2.0000"], ["second", "3.0000", "4.0000"]]
    for width, expected in ((40, 1), (16, 2)):
        shown = io.StringIO()
        console = plain_console(file=shown, width=width)
        print_table(console, ("name", "one", "two"), rows, ("one", "two"))
        assert shown.getvalue().count("second") == expected
        assert all(cell in shown.getvalue() for row in rows for cell in row)
