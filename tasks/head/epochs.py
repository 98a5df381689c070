"""The figures of an epoch, for the table, the curves and the report."""

from dataclasses import dataclass

RATE_WIDTH = 12
"""Characters of the table's last column, images/s, which narrow terminals do without."""


def fitted(line: str, width: int) -> str:
    """Return a line of the table, or its head, as far as it fits."""
    return line if len(line) <= width else line[:-RATE_WIDTH]


def header(metric: str) -> str:
    """Return the head of the table, whose lines `EpochFigures.line` gives."""
    return f"     epoch  train loss  val loss  {f'val {metric}':>12}        s    images/s"


@dataclass(frozen=True)
class EpochFigures:
    """One line of the table.

    Attributes:
        epoch: 1 for the first.
        train_loss: Mean over the epoch's images of what is minimised (smoothed, weighted and
            with dropout, where these are asked for).
        train_accuracy: Share of the epoch's images that were right when they were trained on;
            None where targets are no classes.
        val_loss: Cross-entropy of the validation images, in nats, neither smoothed nor weighted,
            so that it compares across configurations (of numbers their loss, standardised); None
            without validation images.
        val_accuracy: Share of the validation images that are right; None without any, and where
            targets are no classes.
        learning_rate: Rate at the epoch's first step.
        duration_s: Seconds of the epoch, validation included; the first also builds the graph.
        images_per_s: Training images by those seconds.
        metric: The figure beside the loss: accuracy, f1_micro (of labels, at a probability of one
            half) or mae (of numbers, in their unit).
        train_metric: It, of the images trained on, where it is not the accuracy.
        val_metric: The same of the validation images.
    """

    epoch: int
    train_loss: float
    train_accuracy: float | None
    val_loss: float | None
    val_accuracy: float | None
    learning_rate: float
    duration_s: float
    images_per_s: float = 0.0
    metric: str = "accuracy"
    train_metric: float | None = None
    val_metric: float | None = None

    @property
    def train_figure(self) -> float | None:
        """The figure that `metric` names, of the images trained on."""
        return self.train_accuracy if self.metric == "accuracy" else self.train_metric

    @property
    def val_figure(self) -> float | None:
        """The figure that `metric` names, of the validation images."""
        return self.val_accuracy if self.metric == "accuracy" else self.val_metric

    def line(self) -> str:
        """Return the table's line, aligned with `header`."""
        val_loss = "-" if self.val_loss is None else f"{self.val_loss:.4f}"
        figure = "-" if self.val_figure is None else written(self.metric, self.val_figure)
        return (
            f"     {self.epoch:>5}  {self.train_loss:>10.4f}  {val_loss:>8}  {figure:>12}"
            f"  {self.duration_s:>7.2f}  {self.images_per_s:>10,.0f}"
        )


def written(metric: str, value: float) -> str:
    """Write a figure: a share with four decimals, an error in four significant digits."""
    return f"{value:.4g}" if metric == "mae" else f"{value:.4f}"
