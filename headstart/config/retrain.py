"""Retraining when the images change, and promoting what came out better."""

from pydantic import Field

from headstart.config.base import Config
from headstart.config.transfer import TransferConfig


class PromotionConfig(Config):
    """When the new model replaces the one in use."""

    name: str | None = Field(None, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the model (`headstart predict NAME@current`); by default the name of the data set."""
    min_gain: float = Field(0.0, ge=0.0, lt=1.0)
    """Minimum improvement on the same held-out images: an absolute gain for accuracy, average
    precision, F1 and R² (0.01 is one point), a relative reduction for errors and losses."""
    metric: str | None = None
    """The figure that decides: accuracy, macro_f1 or loss of classes; mean_average_precision,
    f1_micro, f1_macro, subset_accuracy, hamming_loss or loss of labels; mae, rmse,
    median_absolute_error or r2 of numbers. By default the first one of each."""


class RetrainConfig(TransferConfig):
    """Everything that the retrain flow can be told."""

    promotion: PromotionConfig = PromotionConfig()

    def training(self) -> TransferConfig:
        """Return what the training is told."""
        return TransferConfig.model_validate(self.model_dump(exclude={"promotion"}))
