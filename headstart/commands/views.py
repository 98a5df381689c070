"""The command that shows augmented views."""

from pathlib import Path
from typing import Annotated, Any

import typer

from headstart.commands.options import (
    AsJson,
    BackboneName,
    ConfigFile,
    ImagesOrConfigs,
    NumViews,
    Settings,
    StoreFolder,
    in_store,
    print_json,
)
from headstart.errors import RecordError

app = typer.Typer()

DEFAULT_NUM_VIEWS = 4


@app.command(no_args_is_help=True)
def views(
    images: ImagesOrConfigs = None,
    config: ConfigFile = None,
    settings: Settings = None,
    backbone: BackboneName = None,
    num_views: NumViews = None,
    num_images: Annotated[
        int, typer.Option("--images", min=1, max=200, help="Number of images to show.")
    ] = 6,
    out: Annotated[Path, typer.Option("--out", help="JPEG file to write.")] = Path("views.jpg"),
    store: StoreFolder = None,
    as_json: AsJson = False,
) -> None:
    """Show some images beside their augmented views."""
    from headstart.config import load_config

    named = {"backbone.name": backbone, "views.num_augmented": num_views}
    chosen = load_config(images, config, tuple(settings or ()), named)
    if num_views is None and not chosen.views.num_augmented:
        shown = chosen.views.model_copy(update={"num_augmented": DEFAULT_NUM_VIEWS})
        chosen = chosen.model_copy(update={"views": shown})

    def work() -> Any:
        from headstart.tasks.bottlenecks.rows import known_backbone
        from headstart.tasks.dataset.building import dataset_root
        from headstart.tasks.dataset.stage import index_of
        from headstart.tasks.dataset.stage import stage as dataset_stage
        from headstart.tasks.views.sheet import describe, draw_sheet

        index = index_of(dataset_stage(chosen.dataset))
        size = known_backbone(chosen.backbone, chosen.views.image_size).image_size
        root, max_pixels = dataset_root(chosen.dataset), chosen.dataset.max_pixels
        drawn = draw_sheet(index, root, chosen.views, size, max_pixels, num_images)
        return drawn, describe(chosen.views)

    drawn, text = in_store(store, work)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(drawn)
    except OSError as error:
        raise RecordError(
            "the picture cannot be written",
            f"{out}: {error.strerror or error}",
            "choose another --out",
        ) from None
    if as_json:
        print_json({"picture": str(out), "recipe": text})
    else:
        print(f"{text}\n{out}")
