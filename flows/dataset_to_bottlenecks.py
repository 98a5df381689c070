"""Steps shared by several flows: from a data set to its bottlenecks, and a page in the UI."""

from collections.abc import Sequence

from headstart.config import BackboneConfig, BottleneckConfig, DatasetConfig, ViewsConfig
from headstart.flows.context import flow_run_context
from headstart.tasks.bottlenecks.rows import known_backbone
from headstart.tasks.bottlenecks.stage import BottlenecksManifest, images_to_extract
from headstart.tasks.bottlenecks.stage import stage as bottlenecks_stage
from headstart.tasks.dataset.stage import DatasetManifest
from headstart.tasks.running.stage import Outcome
from headstart.tasks.views.stage import stage as views_stage


def make_bottlenecks(
    dataset: DatasetManifest,
    source: DatasetConfig,
    views: ViewsConfig,
    backbone: BackboneConfig,
    config: BottleneckConfig,
    pooled: bool = False,
) -> BottlenecksManifest:
    """Make the bottlenecks of a data set that are missing, and the views that this takes.

    Args:
        dataset: The indexed data set.
        source: Where its files are.
        views: How images become pixels.
        backbone: What computes the bottlenecks.
        config: Cuts and storage type.
        pooled: Whether of each activation its average over its positions is enough.

    Returns:
        The manifest of the bottlenecks.
    """
    needed = images_to_extract(dataset, views, backbone, config, pooled)
    size = known_backbone(backbone, views.image_size).image_size
    if needed == ():
        views_stage.skip("not needed: all bottlenecks are there", dataset, source, views, size)
    else:
        views_stage(dataset, source, views, size, needed)
    return bottlenecks_stage(dataset, source, views, backbone, config, pooled)


def publish_page(
    flow_name: str, title: str, markdown: str, path: str, outcomes: Sequence[Outcome]
) -> None:
    """Leave a summary and the stages in the Prefect UI; outside a flow run, do nothing.

    Args:
        flow_name: Begins the artifacts' keys.
        title: Shown as the description of the summary's artifact.
        markdown: The summary itself.
        path: Path of the whole page, linked from the summary.
        outcomes: How the stages went.
    """
    if flow_run_context() is None:
        return
    from prefect.artifacts import create_markdown_artifact, create_table_artifact

    # A path to open, not a link: browsers do not follow file: links from a page of a server.
    text = f"{markdown}\n\nFull page: `{path}`\n"
    create_markdown_artifact(text, key=f"{flow_name}-report", description=title)
    create_table_artifact(
        [outcome.model_dump(exclude={"key"}) for outcome in outcomes],
        key=f"{flow_name}-stages",
        description="What came from the store, and what was computed",
    )
