"""What `headstart audit` and the audit flow can be told."""

from pydantic import Field

from headstart.config.base import Config, Seed
from headstart.config.transfer import BackboneConfig, BottleneckConfig, DatasetConfig, ViewsConfig


class ChecksConfig(Config):
    """Thresholds from which images count as suspicious."""

    num_folds: int = Field(4, ge=2, le=100)
    """Number of cross-validation folds whose out-of-sample predictions the labels are compared
    with."""
    max_hash_distance: int = Field(10, ge=0, le=31)
    """Maximum number of bits (of 64) in which the perceptual hashes of near-duplicates differ."""
    sure_hash_distance: int = Field(4, ge=0, le=31)
    """Bits up to which hashes are strong evidence by themselves: resizing and compressing photos
    changed 2 at the most, and 11 of the 4.9 million pairs of 3,117 photos were as close."""
    min_similarity_if_sure: float = Field(0.5, gt=-1.0, le=1.0)
    """Cosine similarity of the backbone's features that is enough for such pairs: those of a small,
    much compressed copy fell to 0.66."""
    min_similarity: float = Field(0.9, gt=-1.0, le=1.0)
    """Minimum similarity of all other near-duplicates."""
    min_similarity_of_crops: float = Field(0.97, gt=-1.0, le=1.0)
    """Similarity from which hashes may differ in twice as many bits, as where one image is a crop
    of the other."""
    num_neighbours: int = Field(10, ge=1, le=1000)
    """Number of nearest neighbours that outliers are judged by."""
    max_deviations: float = Field(3.5, gt=0.0, le=1e6)
    """An image is an outlier, or blurred, where it lies this many robust standard deviations
    beyond the median of all."""
    max_dark: float = Field(0.25, ge=0.0, le=1.0)
    """An image counts as dark if 99 % of its pixels are darker than this (0 is black, 1 white)."""
    max_size_ratio: float = Field(2.5, gt=1.0, le=1e6)
    """An image counts as odd-sized if its side or aspect ratio is this many times larger or smaller
    than the median."""
    max_imbalance: float = Field(5.0, ge=1.0, le=1e9)
    """A class counts as thin if the largest class has more than this many times its training
    images."""
    seed: Seed = 0
    """Seed of the folds."""


class AuditConfig(Config):
    """Everything that `headstart audit` and the audit flow can be told."""

    dataset: DatasetConfig
    views: ViewsConfig = ViewsConfig()
    backbone: BackboneConfig = BackboneConfig()
    bottlenecks: BottleneckConfig = BottleneckConfig()
    """The cut whose features are used; one that an earlier run has extracted needs no new pass."""
    checks: ChecksConfig = ChecksConfig()
    num_shown: int = Field(24, ge=0, le=1000)
    """Number of pictures on the page for each kind of finding."""
