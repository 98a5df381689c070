"""What `headstart audit` and the audit flow can be told."""

from pydantic import Field

from headstart.config.base import Config, Seed
from headstart.config.transfer import (
    BackboneConfig,
    BottleneckConfig,
    DatasetConfig,
    ViewsConfig,
)


class ChecksConfig(Config):
    """Which images count as suspicious."""

    num_folds: int = Field(4, ge=2, le=100)
    """Folds of the heads whose out-of-sample predictions labels are compared with."""
    max_hash_distance: int = Field(10, ge=0, le=31)
    """Bits of 64 in which the perceptual hashes of near-duplicates may differ."""
    sure_hash_distance: int = Field(4, ge=0, le=31)
    """Bits up to which hashes are strong evidence by themselves: resizing and compressing photos
    changed 2 at the most, and 11 of the 4.9 million pairs of 3,117 photos were as close."""
    min_similarity_if_sure: float = Field(0.5, gt=-1.0, le=1.0)
    """Cosine similarity, in the backbone's features, that is then enough: those of a small, much
    compressed copy fell to 0.66."""
    min_similarity: float = Field(0.9, gt=-1.0, le=1.0)
    """Similarity that other near-duplicates have at least."""
    min_similarity_of_crops: float = Field(0.97, gt=-1.0, le=1.0)
    """Similarity from which hashes may differ in twice as many bits, as where one image is a crop
    of the other."""
    num_neighbours: int = Field(10, ge=1, le=1000)
    """Neighbours looked at for outliers."""
    max_deviations: float = Field(3.5, gt=0.0, le=1e6)
    """An image is an outlier, or blurred, where it lies this many robust standard deviations
    beyond the median of all."""
    max_dark: float = Field(0.25, ge=0.0, le=1.0)
    """An image is dark where 99 % of its pixels are darker than this share of white."""
    max_size_ratio: float = Field(2.5, gt=1.0, le=1e6)
    """An image is odd-sized where its side, or its aspect ratio, is this many times larger or
    smaller than the median image's."""
    max_imbalance: float = Field(5.0, ge=1.0, le=1e9)
    """A class is thin where the largest has more than this many times its training images."""
    seed: Seed = 0
    """Seed of the folds."""


class AuditConfig(Config):
    """Everything that `headstart audit` and the audit flow can be told."""

    dataset: DatasetConfig
    views: ViewsConfig = ViewsConfig()
    backbone: BackboneConfig = BackboneConfig()
    bottlenecks: BottleneckConfig = BottleneckConfig()
    """The cut whose features are looked at; one that an earlier run has written costs no pass."""
    checks: ChecksConfig = ChecksConfig()
    num_shown: int = Field(24, ge=0, le=1000)
    """Pictures of each kind of finding on the page."""
