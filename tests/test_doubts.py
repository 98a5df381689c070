"""A data set that cannot be trained on is refused by name; a head that guesses is told of."""

from pathlib import Path

import pytest

from headstart.config import HeadConfig
from headstart.errors import TrainingError
from headstart.tasks.dataset.index import DatasetIndex, ImageRow
from headstart.tasks.head.epochs import EpochFigures
from headstart.tasks.head.stage import HeadManifest
from headstart.tasks.head.training_warnings import MAX_NAMES, check_classes, doubts
from tests.pipeline import COLOURS, Pipeline, add_images


def index_with(*rows: tuple[str, int], class_names: tuple[str, ...]) -> DatasetIndex:
    """Return an index with one image for each (split, label)."""
    images = tuple(
        ImageRow(f"{number}.png", f"{number:064}", label, split, 8, 8, "PNG")
        for number, (split, label) in enumerate(rows)
    )
    return DatasetIndex(class_names, images)


def head_with(val_loss: float | None, val_accuracy: float | None) -> HeadManifest:
    figures = EpochFigures(1, 9.0, 0.25, val_loss, val_accuracy, 1.0, 1.0)
    has_val = val_loss is not None
    return HeadManifest.model_construct(
        history=(figures,), best_epoch=1, num_classes=4, has_val=has_val
    )


FOUR = index_with(
    *(("train", label) for label in range(4)),
    *(("val", label) for label in range(4)),
    class_names=("a", "b", "c", "d"),
)


def test_classes_without_training_images_are_refused_by_name() -> None:
    names = tuple(f"class {number}" for number in range(MAX_NAMES + 3))
    index = index_with(("train", 1), ("val", 0), ("test", 0), class_names=names)
    with pytest.raises(TrainingError, match="no training image") as caught:
        check_classes(index)
    assert caught.value.received == (
        "none of class 0, class 2, class 3, class 4, class 5 and 2 more (val and test hold 2 of "
        "them)"
    )
    check_classes(FOUR)


def test_the_flow_refuses_before_the_backbones_pass(pipeline: Pipeline, tmp_path: Path) -> None:
    images = tmp_path / "splits"
    for label in COLOURS:
        add_images(images / ("val" if label == "red" else "train"), label, range(3))
    add_images(images / "val", "green", range(3, 5))  # else its classes would all be others
    with pytest.raises(TrainingError, match="none of red"):
        pipeline.run(images=images)
    assert pipeline.num_passed() == 0


@pytest.mark.parametrize(
    ("loss", "accuracy", "is_doubtful"),
    [
        (3.0, 0.25, True),  # log(4) is 1.39
        (3.0, 0.5, False),  # overfitted, but it has learnt something
        (1.3, 0.25, False),  # hardly trained yet
        (None, None, True),  # judged by the training images then
    ],
)
def test_a_head_that_guesses_is_doubted(
    loss: float | None, accuracy: float | None, is_doubtful: bool
) -> None:
    said = doubts(head_with(loss, accuracy), FOUR, HeadConfig(learning_rate=5.0))
    assert bool(said) is is_doubtful
    for line in said:
        assert "no better than guessing" in line
        assert "--set head.learning_rate=0.5" in line
