"""What is said of a rung against what was kept before it."""

import pytest

from headstart.tasks.finetuning.ladder import Rung, judge_rung
from headstart.tasks.finetuning.ladder_page import ladder_page
from headstart.tasks.finetuning.stage import RungManifest
from headstart.tasks.head.epochs import EpochFigures
from headstart.tasks.head.stage import HeadManifest


def epoch(accuracy: float, loss: float) -> EpochFigures:
    return EpochFigures(1, 0.1, 0.9, loss, accuracy, 1e-3, 2.0)


def judged(accuracy: float, loss: float, num_fixed: int, num_broken: int) -> Rung:
    """Judge a rung over a head with 90 % of the images right and a loss of 0.3."""
    kept = HeadManifest.model_construct(history=(epoch(0.9, 0.3),), best_epoch=1)
    trained = RungManifest.model_construct(
        history=(epoch(accuracy, loss),), best_epoch=1, start="conv", num_trained=7,
        num_fixed=num_fixed, num_broken=num_broken,
    )  # fmt: skip
    return judge_rung(trained, kept)


def notes_of(rung: Rung) -> str:
    head = Rung(name="head", start="top", status="kept", val_accuracy=0.9, history=(epoch(0.9, 1),))
    return " ".join(ladder_page("title", [head, rung], 100, 1.0).notes[1:])


def test_as_many_right_is_a_tie() -> None:
    worse = judged(0.9, 0.4, 3, 3)
    assert (worse.status, worse.verdict.split(":")[0]) == ("undone", "a tie, undone")
    assert "Negative transfer" not in notes_of(worse)
    assert "tie" in notes_of(worse)
    better = judged(0.9, 0.2, 3, 3)
    assert better.status == "kept"
    assert better.verdict.startswith("a tie, kept for its lower loss")


@pytest.mark.parametrize(("fixed", "broken", "told"), [(4, 6, "within noise"), (0, 10, "Negative")])
def test_harm_is_called_so_only_where_it_is_clear(fixed: int, broken: int, told: str) -> None:
    rung = judged(0.8, 0.4, fixed, broken)
    assert rung.status == "undone"
    assert told in notes_of(rung)


def test_a_gain_within_noise_is_kept_and_called_so() -> None:
    rung = judged(0.92, 0.28, 6, 4)
    assert rung.status == "kept"
    assert "within noise" in notes_of(rung)
    assert notes_of(judged(1.0, 0.1, 10, 0)) == ""
