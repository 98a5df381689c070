"""The figures of an epoch, for the table, the curves and the report."""

from dataclasses import dataclass

HEADER = "     epoch  train loss  val loss  val accuracy        s    images/s"


@dataclass(frozen=True)
class EpochFigures:
    """One line of the table.

    Attributes:
        epoch: 1 for the first.
        train_loss: Mean over the epoch's images of what is minimised (smoothed, weighted and
            with dropout, where these are asked for).
        train_accuracy: Share of the epoch's images that were right when they were trained on.
        val_loss: Cross-entropy of the validation images, in nats, neither smoothed nor weighted,
            so that it compares across configurations; None without validation images.
        val_accuracy: Share of the validation images that are right; None without any.
        learning_rate: At the epoch's first step.
        duration_s: Seconds of the epoch, validation included; the first also builds the graph.
        images_per_s: Training images by those seconds.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float | None
    val_accuracy: float | None
    learning_rate: float
    duration_s: float
    images_per_s: float = 0.0

    def line(self) -> str:
        """Return the table's line, aligned with `HEADER`."""
        val_loss = "-" if self.val_loss is None else f"{self.val_loss:.4f}"
        val_accuracy = "-" if self.val_accuracy is None else f"{self.val_accuracy:.4f}"
        return (
            f"     {self.epoch:>5}  {self.train_loss:>10.4f}  {val_loss:>8}  {val_accuracy:>12}"
            f"  {self.duration_s:>7.2f}  {self.images_per_s:>10,.0f}"
        )
