"""What `headstart scratch` would write, and whether the disk has room for it."""

import shutil
from typing import NamedTuple

from headstart.config import ScratchConfig
from headstart.tasks.backbones.classic import check_image_shape
from headstart.tasks.dataset.pixels import index_images
from headstart.tasks.dataset.pixels import stage as make_pixels
from headstart.tasks.scratch.schedule import stage as make_schedule
from headstart.tasks.store.artifacts import current_store
from headstart.tasks.views.epoch_stage import DISK_RESERVE_BYTES, layout_of, missing_views


class ScratchPlan(NamedTuple):
    """What a run would do.

    Attributes:
        dataset: The data set in a few words.
        schedule: Width and epochs, and why.
        num_missing: Views of them that are not in the store yet.
        free_bytes: Bytes free on the store's disk.
        fits: Whether they fit, with some room left.
    """

    dataset: str
    schedule: str
    num_views: int
    num_missing: int
    view_bytes: int
    missing_bytes: int
    free_bytes: int
    fits: bool

    def lines(self) -> list[str]:
        """Say it to a person."""
        lines = [
            self.dataset,
            f"schedule: {self.schedule}",
            f"views: {self.num_views}, {self.num_missing} to compute, "
            f"{self.view_bytes / 1e6:,.1f} MB each, {self.missing_bytes / 1e6:,.1f} MB in all",
            f"disk: {self.free_bytes / 1e6:,.0f} MB free",
        ]
        if not self.fits:
            lines.append(
                f"does not fit: {DISK_RESERVE_BYTES / 1e6:,.0f} MB must stay free; free up space, "
                "choose another --store, or set views.num_views lower"
            )
        return lines


def plan_scratch(config: ScratchConfig) -> ScratchPlan:
    """Plan a run; the images are read and, with a budget, the machine is timed."""
    source = config.dataset
    pixels = make_pixels(source, index_images(source))
    check_image_shape(config.network.name, pixels.image_shape)
    schedule = make_schedule(pixels, config.network, config.training)
    num_views = config.views.num_views or schedule.num_views
    num_missing = len(missing_views(pixels, config.views, num_views))
    view_bytes = layout_of(pixels).view_bytes
    free = shutil.disk_usage(current_store().root).free
    needed = num_missing * view_bytes
    return ScratchPlan(
        dataset=f"{pixels.name}: {pixels.num_images('train'):,} training images of "
        f"{' x '.join(map(str, pixels.image_shape))}",
        schedule=schedule.reason,
        num_views=num_views,
        num_missing=num_missing,
        view_bytes=view_bytes,
        missing_bytes=needed,
        free_bytes=free,
        fits=not num_missing or needed + DISK_RESERVE_BYTES <= free,
    )
