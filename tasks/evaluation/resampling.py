"""Bootstrap intervals over images, of any figures that sums over images give.

Images that belong together (a patient's) are drawn together: each says less than one of its own.
"""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from headstart.config import EvaluationConfig
from headstart.tasks.dataset.units import Units

Counts = npt.NDArray[np.int64]
"""[resamples, n]: how often each image was drawn."""
Interval = tuple[float, float]

CHUNK_CELLS = 2**22
"""Numbers of a block of resamples: 32 MiB of int64."""
MIN_RESAMPLES = 100
MAX_CELLS = 5 * 10**8
"""Of all resamples; beyond, fewer are drawn, down to `MIN_RESAMPLES`: 5 s or so."""


def bootstrap(
    num_images: int,
    width: int,
    config: EvaluationConfig,
    figures: Callable[[Counts], Mapping[str, npt.NDArray[np.float64]]],
    units: Units = None,
) -> dict[str, Interval | None]:
    """Give the percentile interval of each figure.

    Args:
        num_images: Number of images, n.
        width: Numbers an image that a figure looks at; bounds time and memory.
        config: Resamples, coverage and seed.
        figures: Called with blocks of counts; gives each figure of each resample, NaN where it
            cannot be computed.
        units: int64 [n]: images of one number are drawn together; None where each stands alone.

    Returns:
        By figure, its interval; None without images, or where hardly a resample has the figure.

    Source: Efron & Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3.
    """
    cells = max(1, num_images * width)
    total = min(config.num_bootstrap, max(MIN_RESAMPLES, MAX_CELLS // cells))
    if not num_images:
        return dict.fromkeys(figures(np.zeros((1, 0), np.int64)))
    rng, found = np.random.default_rng(config.seed), []
    size = max(1, CHUNK_CELLS // cells)
    unit_of = None if units is None else np.unique(units, return_inverse=True)[1]
    num_drawn = num_images if unit_of is None else int(unit_of.max()) + 1
    for start in range(0, total, size):
        shape = (min(size, total - start), num_drawn)
        draws = rng.integers(num_drawn, size=shape)
        rows = draws + num_drawn * np.arange(shape[0])[:, np.newaxis]
        counts = np.bincount(rows.ravel(), minlength=shape[0] * num_drawn).reshape(shape)
        found.append(figures(counts if unit_of is None else counts[:, unit_of]))
    outside = (1.0 - config.confidence) / 2.0
    return {
        name: _interval(np.concatenate([block[name] for block in found]), outside)
        for name in found[0]
    }


def _interval(values: npt.NDArray[np.float64], outside: float) -> Interval | None:
    known = values[np.isfinite(values)]
    if 2 * len(known) < len(values):
        return None
    low, high = np.quantile(known, (outside, 1.0 - outside))
    return float(low), float(high)
