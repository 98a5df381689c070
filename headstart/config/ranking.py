"""What `headstart rank` and the rank flow can be told."""

from pydantic import Field, model_validator

from headstart.config.base import Config, NamedPath, NameOrPath, Seed
from headstart.config.transfer import (
    BottleneckConfig,
    DatasetConfig,
    EvaluationConfig,
    HeadConfig,
    ViewsConfig,
)


class CandidatesConfig(Config):
    """Which backbones and cuts are compared."""

    backbones: tuple[NameOrPath, ...] = ()
    """Names from `headstart backbones` or model files; where none is given, those whose pretrained
    weights are installed as Python packages."""
    cuts: tuple[str, ...] = Field(("natural",), min_length=1)
    """Cuts of each backbone: natural (the last cut at each of its smallest resolutions, and top),
    top, or names from `headstart cuts`. BACKBONE:CUT names a cut of one backbone only."""
    num_resolutions: int = Field(2, ge=0, le=16)
    """Resolutions, counted from the smallest, at which natural takes a cut."""


class ScoringConfig(Config):
    """How features are scored without training a head."""

    num_neighbours: int = Field(5, ge=1, le=1000)
    """Number of neighbours of the k-nearest-neighbours probe."""
    num_folds: int = Field(3, ge=2, le=100)
    """Folds of the linear probe's cross-validation."""
    max_images: int = Field(10_000, ge=10, le=10_000_000)
    """Maximum number of training images to score on; if there are more, they are sampled at
    random."""
    seed: Seed = 0
    """Seed of that draw and of the folds."""


class BaselineConfig(Config):
    """A small network trained from scratch, as the baseline that a transfer has to beat."""

    enabled: bool = True
    """Whether to train it."""
    max_seconds: float = Field(120.0, gt=0.0, le=1e7)
    """It trains for as long as the best transfer took, from views to head, and at most this many
    seconds."""
    image_size: int = Field(64, ge=16, le=512)
    """Side in pixels that the views are reduced to for it."""
    seed: Seed = 0
    """Seed of its weights and of the order of the images."""


class RankConfig(Config):
    """Everything that `headstart rank` and the rank flow can be told."""

    dataset: DatasetConfig
    views: ViewsConfig = ViewsConfig()
    candidates: CandidatesConfig = CandidatesConfig()
    bottlenecks: BottleneckConfig = BottleneckConfig()
    """Storage type and batch size; the cuts are the candidates'."""
    scoring: ScoringConfig = ScoringConfig()
    head: HeadConfig = HeadConfig()
    """The head that each candidate is measured with."""
    evaluation: EvaluationConfig = EvaluationConfig()
    baseline: BaselineConfig = BaselineConfig()

    @model_validator(mode="after")
    def _leave_cuts_to_candidates(self) -> "RankConfig":
        if self.bottlenecks.cut != "top" or self.bottlenecks.extra_cuts:
            raise ValueError("the cuts to rank are candidates.cuts, not bottlenecks.cut")
        return self


class SourceConfig(Config):
    """What `headstart sources add` registers."""

    name: str
    """Name of the source."""
    dataset: DatasetConfig
    """What the model was trained on; its training images are the source."""
    model: NamedPath
    """The exported .keras file."""
    backbone: str
    """Backbone that the model was trained with."""
