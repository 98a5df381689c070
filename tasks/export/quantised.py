"""What a file of fewer bits costs: its figure on held-out images beside the pipeline's own."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from headstart.config import EvaluationConfig
from headstart.tasks.evaluation.judges import JUDGES
from headstart.tasks.export.file_names import FILE_NAMES, Format
from headstart.tasks.export.model_files import ModelCard
from headstart.tasks.export.runtimes import load_network
from headstart.tasks.progress import reporter
from headstart.tasks.targets.choice import TARGETS

MAX_JUDGED = 1000
"""Held-out images that a quantised file is judged by, at the most."""
BATCH_ROWS = 32


class HeldOut(NamedTuple):
    """Images that a network did not train on.

    Attributes:
        views: uint8 [n, image_size, image_size, 3].
        rows: What the network takes for them, [n, *shape].
        labels: int [n]; of other kinds of targets what `Target.to_array` says.
    """

    split: str
    views: NDArray[np.uint8]
    rows: NDArray[Any]
    labels: NDArray[Any]


class Loss(BaseModel, frozen=True):
    """How good a quantised file is, and what it is to be compared with."""

    split: str
    metric: str = "accuracy"
    """The figure that models on such targets are known by: accuracy, mAP or MAE."""
    accuracy: float
    """That figure, whatever it is called."""
    float_accuracy: float
    """Of the pipeline, on the same images."""
    num_images: int

    @property
    def lost(self) -> float:
        """What the fewer bits cost, a share; negative where they happen to help."""
        if self.metric == JUDGES["number"].main_name:
            return self.accuracy / self.float_accuracy - 1.0 if self.float_accuracy else 0.0
        return self.float_accuracy - self.accuracy

    @property
    def lost_in_words(self) -> str:
        """It, with its unit."""
        is_error = self.metric == JUDGES["number"].main_name
        return f"{100 * self.lost:.2f} {'% of error' if is_error else 'points'}"


def judge_quantised(
    folder: Path, kind: Format, network: Any, held_out: HeldOut, card: ModelCard
) -> Loss | None:
    """Measure what a file's fewer bits cost.

    Args:
        folder: Folder with the exported files.
        kind: Format of the file to judge.
        network: The head, rows to logits.
        held_out: Images to judge by.
        card: Card of the model.

    Returns:
        Both figures; None where these images have none, as of labels that none of them has.
    """
    _, engine = load_network(folder / FILE_NAMES[kind])
    labels = held_out.labels
    answers, wanted = [], []
    with reporter().track(f"judging {kind}", len(labels), "images") as advance:
        for start in range(0, len(labels), BATCH_ROWS):
            part = slice(start, start + BATCH_ROWS)
            rows = held_out.rows[part].astype(np.float32)
            wanted.append(np.asarray(network(rows, training=False)))
            answers.append(engine(held_out.views[part]))
            advance(len(rows))
    judge, target = JUDGES[card.target], TARGETS[card.target]
    outputs = target.outputs(np.concatenate(answers), card.fit)
    few = EvaluationConfig(num_bootstrap=10)  # no intervals are told
    figure, whole = (
        getattr(judge.evaluate(one, labels, card.class_names, card.fit, few), judge.main)
        for one in (outputs, np.concatenate(wanted))
    )
    if figure is None or whole is None:
        return None
    made = Loss(
        split=held_out.split,
        metric=judge.main_name,
        accuracy=figure,
        float_accuracy=whole,
        num_images=len(labels),
    )
    reporter().note(
        f"     {FILE_NAMES[kind]}: {made.split} {made.metric} {figure:.4g} on "
        f"{made.num_images:,} images, {whole:.4g} in float32: {made.lost_in_words} lost"
    )
    return made
