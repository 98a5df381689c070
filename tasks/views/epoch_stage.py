"""The stage of the epochs' views: each view an artefact of its own, made once.

Asking for more views makes the new ones; a killed run keeps those that are whole; a damaged one
is made again alone. Views are computed side by side on all cores, and a view's bytes do not
depend on which thread makes it.
"""

import contextvars
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from headstart.config import EpochViewsConfig
from headstart.errors import ConfigError, RecordError
from headstart.tasks.dataset.pixels import PixelsManifest, open_images
from headstart.tasks.progress import Reporter, reporter, use_reporter
from headstart.tasks.running.spreading import available_cores
from headstart.tasks.running.stage import Made, Stage, collect_outcomes
from headstart.tasks.store.artifacts import FileEntry, Manifest, current_store
from headstart.tasks.views.epoch_augment import EpochRecipe
from headstart.tasks.views.epoch_draws import image_keys
from headstart.tasks.views.epoch_shards import Layout, ViewWriter, recipe_fields

DISK_RESERVE_BYTES = 256 * 2**20
"""Left free on the disk besides what is written, for the model, the report and the system."""


class EpochViewsManifest(Manifest):
    """Views for epochs: view v of all training images, v from 1 to num_views."""

    num_views: int
    view_keys: tuple[str, ...]
    """Key of each view's artefact, view 1 first."""
    image_shape: tuple[int, int, int]
    recipe: dict[str, Any]


def recipe_of(pixels: PixelsManifest, config: EpochViewsConfig) -> EpochRecipe:
    """Say what is done to a data set's images.

    Returns:
        The recipe, with the defaults that depend on the data set filled in.

    Raises:
        ConfigError: Padding or cutout do not fit the images.
    """
    side = min(pixels.image_shape[:2])
    padding = side // 8 if config.padding is None else config.padding
    if padding >= side or config.cutout >= side:
        raise ConfigError(
            f"padding and cutout must be smaller than the images ({side} pixels)",
            f"views.padding={padding}, views.cutout={config.cutout}",
            "set smaller ones",
        )
    flips = pixels.flips if config.flip == "auto" else config.flip
    return EpochRecipe(padding, flips, config.cutout, tuple(round(m) for m in pixels.mean))


def fields_of(pixels: PixelsManifest, config: EpochViewsConfig) -> dict[str, Any]:
    """Return everything that decides the bytes of a view, besides its number."""
    return recipe_fields(recipe_of(pixels, config), config.seed, pixels.pixels_digest)


def layout_of(pixels: PixelsManifest) -> Layout:
    """Say how a view of a data set is divided into shards."""
    return Layout(pixels.num_images("train"), pixels.image_shape)


def shard_paths(views: EpochViewsManifest, layout: Layout) -> list[list[Path]]:
    """List the shards of each view, view 1 first; as many for each, all of them here to be read."""
    store = current_store()
    paths = [
        [store.artefact_path(_view_stage.name, key) / name for name in layout.shard_names()]
        for key in views.view_keys
    ]
    for shards in paths:
        for path in shards:
            store.pull(path)
    return paths


def set_damaged_aside(views: EpochViewsManifest) -> list[str]:
    """Set shards aside that are not what was written, so that their views are made again.

    Args:
        views: Whose shards are read through and compared with their digests.

    Returns:
        Their paths in the store, and those of shards that were gone.
    """
    store = current_store()
    damaged = [
        entry.path for entry in views.files if not entry.is_intact(store.root, thorough=True)
    ]
    for path in damaged:
        store.set_aside(store.root / path)
    return damaged


def missing_views(pixels: PixelsManifest, config: EpochViewsConfig, num_views: int) -> list[int]:
    """List the views that are not in the store."""
    fields = fields_of(pixels, config)
    views = range(1, num_views + 1)
    return [view for view in views if _view_stage.find(fields, view, _no_writer) is None]


def check_disk(pixels: PixelsManifest, num_missing: int) -> int:
    """Refuse views that the disk has no room for.

    Returns:
        Bytes they take.

    Raises:
        RecordError: There is less room on the disk.
    """
    needed = num_missing * layout_of(pixels).view_bytes
    free = shutil.disk_usage(current_store().root).free
    if num_missing and needed + DISK_RESERVE_BYTES > free:
        raise RecordError(
            f"too little disk space: {num_missing} views take {needed / 1e6:,.0f} MB, and "
            f"{DISK_RESERVE_BYTES / 1e6:,.0f} MB must stay free",
            f"{free / 1e6:,.0f} MB free under {current_store().root}",
            "free space, choose another --store, or fewer views with --set views.num_views=5: "
            "epochs then share them",
        )
    return needed


def _views_key(pixels: PixelsManifest, config: EpochViewsConfig, num_views: int) -> dict[str, Any]:
    return {**fields_of(pixels, config), "num_views": num_views}


def _write_views(
    folder: Path, pixels: PixelsManifest, config: EpochViewsConfig, num_views: int
) -> Made:
    recipe, fields = recipe_of(pixels, config), fields_of(pixels, config)
    missing = missing_views(pixels, config, num_views)
    check_disk(pixels, len(missing))
    images = open_images(pixels, "train")
    writer = _WriterOnce(lambda: ViewWriter(images, image_keys(images), recipe, fields))
    if missing:
        writer()  # before the threads, which would each begin one
    with reporter().track("views", len(missing), "views") as advance:
        calls = [partial(_view_stage.run, fields, view, writer) for view in missing]
        _run_quietly(calls, available_cores(), advance)
    manifests = [_view_stage.find(fields, view, _no_writer) for view in range(1, num_views + 1)]
    made = [manifest for manifest in manifests if manifest is not None]
    if len(made) != num_views:
        raise RecordError(
            "the views that were just written are gone from the store",
            f"{num_views - len(made)} of {num_views} are missing",
            "run the command again when nothing else changes the store",
        )
    files: tuple[FileEntry, ...] = tuple(entry for one in made for entry in one.files)
    return Made(
        num_rows=num_views * len(images),
        num_rows_computed=len(missing) * len(images),
        shards=files,
        fields={
            "num_views": num_views,
            "view_keys": tuple(one.key for one in made),
            "image_shape": pixels.image_shape,
            "recipe": fields,
        },
    )


class _WriterOnce:
    """Makes the writer when the first view needs it."""

    def __init__(self, make: Callable[[], ViewWriter]) -> None:
        self._make = make
        self._writer: ViewWriter | None = None

    def __call__(self) -> ViewWriter:
        if self._writer is None:
            self._writer = self._make()
        return self._writer


def _no_writer() -> ViewWriter:
    raise RuntimeError("a view that is only looked for is not written")


def _run_quietly(
    calls: Sequence[Callable[[], object]], num_workers: int, advance: Callable[[int], None]
) -> None:
    """Make views in threads; after an error or Ctrl-C, those that have begun are finished."""
    silent = Reporter(Console(quiet=True), stage_lines=False)

    def call(work: Callable[[], object]) -> None:
        with collect_outcomes(), use_reporter(silent):
            work()

    pool = ThreadPoolExecutor(num_workers, "epoch-views")
    try:
        # A thread starts without the context's store.
        futures: set[Future[None]] = {
            pool.submit(contextvars.copy_context().run, call, work) for work in calls
        }
        while futures:
            done, futures = wait(futures, timeout=0.5, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
                advance(1)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _view_key(fields: dict[str, Any], view: int, writer: Callable[[], ViewWriter]) -> Any:
    return {**fields, "view": view}


def _write_view(
    folder: Path, fields: dict[str, Any], view: int, writer: Callable[[], ViewWriter]
) -> Made:
    made = writer()
    made.write(folder, view)
    return Made(made.layout.num_rows, made.layout.num_rows)


def _describe(made: EpochViewsManifest) -> str:
    steps = [f"crop ±{made.recipe['padding']}"] if made.recipe["padding"] else []
    steps += ["flip"] if made.recipe["flip"] else []
    steps += [f"cutout {made.recipe['cutout']}"] if made.recipe["cutout"] else []
    megabytes = sum(entry.num_bytes for entry in made.files) / 1e6
    number = "1 view" if made.num_views == 1 else f"{made.num_views} views"
    done = f"with {', '.join(steps)} baked in" if steps else "without augmentation"
    return f"{number} an image, {done}, {megabytes:,.0f} MB"


_view_stage = Stage("epoch_view", 2, Manifest, _write_view, _view_key)
stage = Stage("epoch_views", 1, EpochViewsManifest, _write_views, _views_key, _describe)
