"""The registry of sources: what trained models learned from, so that P2L can compare them.

One JSON file a source under ``sources/`` of the store, written aside and renamed. A source is a
data set as a reference model sees it, with its size and the model that was trained on it.
"""

import math
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from headstart.config import BackboneConfig
from headstart.errors import ConfigError
from headstart.tasks.backbones.backbone import Backbone
from headstart.tasks.store.artifacts import Store
from headstart.tasks.store.sealing import read_sealed

REFERENCE = BackboneConfig()
"""The reference model, in whose space data sets are compared: the default backbone."""
IMAGENET = "imagenet"
NUM_IMAGENET_IMAGES = 1_281_167
"""Source: Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", 2015, table 2:
training images of the classification task."""
MAX_ACTIVATION = 6.0
"""Where the ReLU6 of EfficientNet-Lite ends."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


class Source(BaseModel, frozen=True, extra="forbid"):
    """A data set that a model was trained on, and how the reference model sees it."""

    name: str
    num_images: int
    num_classes: int
    backbone: str
    """Backbone of the model that was trained on it."""
    model_sha256: str | None
    """Of the exported .keras file; None for the default backbone, which has no file."""
    reference: str
    """Name of the reference model."""
    mean_features: tuple[float, ...]
    """Mean of its images' pooled features in the reference model's space."""
    added: str
    """When, ISO 8601."""


def list_sources(store: Store) -> list[Source]:
    """Return the registered sources by name; the default backbone's ImageNet comes first.

    Raises:
        ConfigError: A file of the registry is damaged.
    """
    sources = [_read(path) for path in sorted(_folder(store).glob("*.json"))]
    return sorted(sources, key=lambda source: (source.name != IMAGENET, source.name))


def add_source(store: Store, source: Source) -> None:
    """Register a source; one of the same name is replaced.

    Raises:
        ConfigError: The source's name cannot name a file.
    """
    check_name(source.name)
    store.check_writable("source")
    with store.lock(f"sources/{source.name}"):
        store.write_json(_folder(store) / f"{source.name}.json", source.model_dump(mode="json"))


def check_name(name: str) -> None:
    """Refuse a name that cannot name a file.

    Raises:
        ConfigError: It has other characters than letters, digits, dots, dashes and underscores.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            "invalid name for a source: use up to 100 letters, digits, dots, dashes and "
            "underscores",
            repr(name),
            "choose one with --name",
        )


def seed_registry(store: Store, reference: Backbone) -> None:
    """Register what the reference model itself was trained on, where that is not done yet."""
    if (_folder(store) / f"{IMAGENET}.json").exists() or not store.is_writable:
        return
    add_source(
        store,
        Source(
            name=IMAGENET,
            num_images=NUM_IMAGENET_IMAGES,
            num_classes=1000,
            backbone=REFERENCE.name,
            model_sha256=None,
            reference=REFERENCE.name,
            mean_features=tuple(imagenet_mean_features(reference).tolist()),
            added=datetime.now(UTC).isoformat(timespec="seconds"),
        ),
    )


def imagenet_mean_features(reference: Backbone) -> npt.NDArray[np.float64]:
    """Recall the mean of ImageNet's pooled features from the reference model's weights.

    Its last batch normalisation kept each channel's mean and variance over ImageNet, and maps
    them to its own beta and gamma^2. Taking the channel for normal, what pooling averages is
    ReLU6 of N(beta, gamma^2). No image of ImageNet is needed.

    Returns:
        float64 [C], at least 0.
    """
    layers = reference.model.layers
    normalisation = [layer for layer in layers if type(layer).__name__ == "BatchNormalization"][-1]
    mean = np.asarray(normalisation.beta, np.float64)
    deviation = np.abs(np.asarray(normalisation.gamma, np.float64))
    return mean_of_clipped_normal(mean, deviation, MAX_ACTIVATION)


def mean_of_clipped_normal(
    mean: npt.NDArray[np.float64], deviation: npt.NDArray[np.float64], ceiling: float
) -> npt.NDArray[np.float64]:
    """Return E[min(max(x, 0), ceiling)] for x ~ N(mean, deviation^2).

    Args:
        mean: float64 [n], of the unclipped variable.
        deviation: float64 [n], at least 0.
        ceiling: Greatest value after clipping, above 0.

    Returns:
        float64 [n].

    Source:
        The first moments of a truncated normal: Johnson, Kotz and Balakrishnan, "Continuous
        Univariate Distributions", volume 1, 1994, section 10.1.
    """
    from scipy.stats import norm

    deviation = np.maximum(deviation, 1e-12)
    low, high = -mean / deviation, (ceiling - mean) / deviation
    inside = mean * (norm.cdf(high) - norm.cdf(low))
    inside += deviation * (norm.pdf(low) - norm.pdf(high))
    clipped: npt.NDArray[np.float64] = inside + ceiling * norm.sf(high)
    return clipped


def divergence(
    source: npt.NDArray[np.float64], target: npt.NDArray[np.float64], floor: float = 1e-6
) -> float:
    """Compute the Kullback-Leibler divergence of the target's mean features from the source's.

    Args:
        source: float64 [C], at least 0: mean features, scaled here to sum to 1.
        target: float64 [C], at least 0: mean features, scaled likewise.
        floor: Share that stands in for a channel that a data set never excites.

    Returns:
        sum t log(t / s), nats, at least 0.

    Source:
        Bhattacharjee et al., "P2L: Predicting Transfer Learning for Images and Semantic
        Relations", CVPR workshops 2020, https://arxiv.org/abs/1908.07630: the divergence between
        the mean features of source and target in the space of a reference model.
    """
    shares = []
    for mean in (source, target):
        positive = np.maximum(np.asarray(mean, np.float64), 0.0)
        share = np.maximum(positive / max(float(positive.sum()), 1e-300), floor)
        shares.append(share / share.sum())
    s, t = shares
    return float((t * np.log(t / s)).sum())


def p2l(source: Source, target: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Predict how well a source would serve a target: near it, and large.

    P2L = exp(-D) log10(n), with D the `divergence` of the target's mean features from the
    source's and n the source's number of images. The two ingredients are the paper's; its
    weighting of them is not reproduced. Here they are joined without a constant: a source ten
    times as large counts for one more, and a divergence of one nat divides by e.

    Args:
        source: Mean features and number of images, as registered.
        target: float64 [C], the target's mean features in the same reference model's space.

    Returns:
        (P2L, D).

    Source:
        Bhattacharjee et al. 2020; see `divergence`.
    """
    distance = divergence(np.array(source.mean_features), target)
    return math.exp(-distance) * math.log10(max(source.num_images, 1)), distance


def _folder(store: Store) -> Path:
    return store.root / "sources"


def _read(path: Path) -> Source:
    try:
        return Source.model_validate(read_sealed(path))
    except (OSError, ValueError) as error:
        lines: list[Any] = str(error).splitlines()
        raise ConfigError(
            "a file of the registry of sources is damaged",
            f"{path}: {lines[0]}",
            "delete it, and add the source again with `headstart sources add RUN`",
        ) from None
