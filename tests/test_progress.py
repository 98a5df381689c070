"""What a person sees, on a terminal and elsewhere."""

import io
import itertools
import re

import pytest
from rich.console import Console

from headstart.tasks.progress import (
    LOG_PERIOD_S,
    Reporter,
    _pace,
    copy_lines_to,
    reporter,
    use_reporter,
)


class Screen:
    """A reporter and what it has written."""

    def __init__(self, *, is_terminal: bool = False, stage_lines: bool = True) -> None:
        self._file = io.StringIO()
        console = Console(file=self._file, force_terminal=is_terminal, width=100, _environ={})
        self.reporter = Reporter(console, stage_lines=stage_lines)

    @property
    def raw(self) -> str:
        return self._file.getvalue()

    @property
    def text(self) -> str:
        """What was written, without colours and movements of the cursor."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.raw)

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()


@pytest.fixture
def screen() -> Screen:
    return Screen()


@pytest.fixture
def tick_s(monkeypatch: pytest.MonkeyPatch) -> float:
    """Let a little more than half a period pass between any two looks at the clock."""
    step_s = 0.6 * LOG_PERIOD_S
    clock = itertools.count()
    monkeypatch.setattr("headstart.tasks.progress.time.monotonic", lambda: step_s * next(clock))
    return step_s


def test_a_stage_has_one_line(screen: Screen) -> None:
    screen.reporter.stage("head", "hit", "3 classes, 2.0 s saved")
    screen.reporter.stage("bottlenecks", "miss", "36 rows")
    assert screen.lines == [
        "HIT  head         3 classes, 2.0 s saved",
        "MISS bottlenecks  36 rows",
    ]


def test_notes_are_written_as_they_are(screen: Screen) -> None:
    note = "[bold]brackets[/] of a file name, and more than a line's width " + 100 * "x"
    screen.reporter.note(note)
    screen.reporter.stage("head", "miss", "[red] -> [/]")
    assert screen.lines == [note, "MISS head         [red] -> [/]"]


def test_stage_lines_can_be_left_out() -> None:
    screen = Screen(stage_lines=False)
    screen.reporter.stage("head", "hit", "3 classes")
    assert screen.text == ""
    screen.reporter.note("but notes are written")
    assert screen.lines == ["but notes are written"]


@pytest.mark.parametrize(
    ("done", "seconds", "unit", "told"),
    [
        (300, 2.0, "images", ", 150 images/s"),
        (9, 2.0, "images", ", 4.5 images/s"),
        (2, 9.0, "networks", ", 4.5 s each"),
        (7, 7.0, "seconds", ""),
    ],
)
def test_a_pace_has_a_figure_that_says_something(
    done: int, seconds: float, unit: str, told: str
) -> None:
    assert _pace(done, seconds, unit) == told


def test_without_a_terminal_there_is_a_line_a_period(screen: Screen, tick_s: float) -> None:
    with screen.reporter.track("views", 1200, "images") as advance:
        for _ in range(6):
            advance(200)
    # It looks at the clock once a call: a period has passed at each second one, but at the last
    # there is nothing left to tell of.
    assert screen.lines == [
        f"     views {done:,}/1,200 images, {200 / tick_s:,.0f} images/s, {left:,.0f} s left"
        for done, left in ((400, 4 * tick_s), (800, 2 * tick_s))
    ]


def test_a_long_step_that_gets_nothing_done_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = itertools.count(0.0, 2 * LOG_PERIOD_S)
    monkeypatch.setattr("headstart.tasks.progress.time.monotonic", lambda: next(now_s))
    told = io.StringIO()
    with Reporter(Console(file=told)).track("training", 3, "seconds") as advance:
        advance(0)
        advance(1)
    assert "training 0/3" not in told.getvalue()
    assert "training 1/3" in told.getvalue()


def test_without_a_terminal_short_work_is_silent(screen: Screen) -> None:
    with screen.reporter.track("views", 3, "images") as advance:
        for _ in range(3):
            advance(1)
    assert screen.text == ""


def test_on_a_terminal_there_is_a_bar() -> None:
    screen = Screen(is_terminal=True)
    with screen.reporter.track("views", 40, "images") as advance:
        advance(15)
        advance(25)
    assert re.search(r"views .*━.* 40/40 images, [0-9,]+ images/s", screen.text)


@pytest.mark.parametrize("is_terminal", [False, True])
def test_nothing_to_do_is_silent(is_terminal: bool) -> None:
    screen = Screen(is_terminal=is_terminal)
    with screen.reporter.track("views", 0, "images") as advance:
        advance(0)
    assert screen.text == ""


@pytest.mark.usefixtures("tick_s")
def test_a_length_that_is_learned_on_the_way(screen: Screen) -> None:
    with screen.reporter.track_to("reading images", "files") as on_progress:
        for done in (10, 20, 30, 40):
            on_progress(done, 60)
    assert [line.split(",")[0] for line in screen.lines] == [
        "     reading images 20/60 files",
        "     reading images 40/60 files",
    ]


@pytest.mark.parametrize("is_terminal", [False, True])
def test_a_loop_that_never_begins_is_silent(is_terminal: bool) -> None:
    screen = Screen(is_terminal=is_terminal)
    with screen.reporter.track_to("reading images", "files"):
        pass
    assert screen.text == ""


def test_an_error_inside_a_bar_leaves_the_terminal_usable() -> None:
    screen = Screen(is_terminal=True)
    with (
        pytest.raises(KeyboardInterrupt),
        screen.reporter.track_to("reading images", "files") as on_progress,
    ):
        on_progress(1, 3)
        raise KeyboardInterrupt
    hide_cursor, show_cursor = "\x1b[?25l", "\x1b[?25h"
    assert screen.raw.rindex(show_cursor) > screen.raw.rindex(hide_cursor)


def test_the_reporter_in_use_ends_with_its_block(screen: Screen) -> None:
    inner = Screen()
    with use_reporter(screen.reporter):
        with pytest.raises(KeyError), use_reporter(inner.reporter):
            assert reporter() is inner.reporter
            raise KeyError
        assert reporter() is screen.reporter
    assert reporter() is not screen.reporter


def test_results_can_be_piped(capsys: pytest.CaptureFixture[str]) -> None:
    reporter().note("to standard error")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "to standard error\n")


@pytest.mark.usefixtures("tick_s")
def test_lines_are_copied_to_a_log(screen: Screen) -> None:
    log: list[str] = []
    with use_reporter(screen.reporter), copy_lines_to(log.append):
        reporter().note("a note")
        reporter().stage("head", "hit", "3 classes")
        with reporter().track("views", 100, "images") as advance:
            advance(10)
            advance(10)
    assert log == screen.lines
    assert [line.split()[0] for line in log] == ["a", "HIT", "views"]
    with use_reporter(screen.reporter):
        reporter().note("after the block")
    assert len(log) == 3


def test_a_log_alone_gets_the_lines_where_nobody_chose_a_reporter(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log: list[str] = []
    with copy_lines_to(log.append):
        reporter().note("a note")
        reporter().stage("head", "miss", "3 classes")
    assert log == ["a note", "MISS head         3 classes"]
    assert capsys.readouterr().err == ""
    reporter().note("a note")
    assert capsys.readouterr().err == "a note\n"


def test_a_log_does_not_get_stage_lines_that_are_left_out() -> None:
    log: list[str] = []
    with use_reporter(Screen(stage_lines=False).reporter), copy_lines_to(log.append):
        reporter().stage("head", "hit", "3 classes")
    assert log == []
