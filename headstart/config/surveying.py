"""What `headstart survey` and the survey flow can be told."""

from typing import Annotated

from pydantic import Field, model_validator

from headstart.config.base import Config
from headstart.config.transfer import (
    BottleneckConfig,
    DatasetConfig,
    EvaluationConfig,
    HeadConfig,
    ViewsConfig,
)


class MeasuringConfig(Config):
    """What is measured on this machine."""

    enabled: bool = True
    """Measure memory and throughput; otherwise all is computed from the networks' graphs."""
    batch_sizes: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = Field((1, 8, 32), min_length=1)
    """Images per forward pass, in ascending order."""
    seconds: float = Field(1.0, gt=0.0, le=600.0)
    """Minimum number of seconds to time each batch size for."""

    @model_validator(mode="after")
    def _ascend(self) -> "MeasuringConfig":
        if list(self.batch_sizes) != sorted(set(self.batch_sizes)):
            raise ValueError(
                "batch_sizes must be ascending, because the peak memory of a process never falls"
            )
        return self


class SurveyConfig(Config):
    """Everything that `headstart survey` and the survey flow can be told."""

    backbones: tuple[str, ...] = ()
    """Names from `headstart backbones`; all of them where none is given."""
    measuring: MeasuringConfig = MeasuringConfig()
    dataset: DatasetConfig | None = None
    """Images on which the backbones with installed weights are judged by a head on their top;
    without any, no accuracy is shown."""
    views: ViewsConfig = ViewsConfig()
    bottlenecks: BottleneckConfig = BottleneckConfig()
    head: HeadConfig = HeadConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
