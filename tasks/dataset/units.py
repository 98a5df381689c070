"""What belongs together, in numbers: images of one group, and copies of one image."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from headstart.tasks.dataset.index import ImageRow

Units = npt.NDArray[np.int64] | None
"""int64 [n]: images of one number belong together, and do not vouch for one another; None where
each stands alone."""


def units_among(rows: Sequence[ImageRow]) -> Units:
    """Number what belongs together, in the order of the units' first rows."""
    numbers: dict[str, int] = {}
    units = [numbers.setdefault(row.unit, len(numbers)) for row in rows]
    return None if len(numbers) == len(rows) else np.array(units, np.int64)
