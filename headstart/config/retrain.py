"""Retraining when the images change, and promoting what came out better."""

from pydantic import Field

from headstart.config.base import Config
from headstart.config.transfer import TransferConfig


class PromotionConfig(Config):
    """When the new model replaces the one in use."""

    name: str | None = Field(None, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Under which the model is used (`headstart predict NAME@current`); the data set's own name
    where not given."""
    min_gain: float = Field(0.0, ge=0.0, lt=1.0)
    """By how much the accuracy on the same held-out images must be higher, as a share."""


class RetrainConfig(TransferConfig):
    """Everything that the retrain flow can be told."""

    promotion: PromotionConfig = PromotionConfig()

    def training(self) -> TransferConfig:
        """Return what the training is told."""
        return TransferConfig.model_validate(self.model_dump(exclude={"promotion"}))
