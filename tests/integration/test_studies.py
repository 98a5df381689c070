"""Comparisons and transferability curves on a tiny network."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from headstart.config import CompareConfig, TransferabilityConfig, build_config
from headstart.errors import ConfigError
from headstart.flows.compare import StudySummary, compare
from headstart.flows.transferability import transferability
from headstart.tasks.bottlenecks.features import Features
from headstart.tasks.bottlenecks.rows import open_backbone
from headstart.tasks.dataset.stage import stage as dataset_stage
from headstart.tasks.store.artifacts import use_store
from tests.pipeline import STUDY, Pipeline


def run_comparison(pipeline: Pipeline, *settings: str) -> StudySummary:
    """Run the flow, without Prefect."""
    name = f"backbone.name={pipeline.backbone}"
    config = build_config(
        CompareConfig, pipeline.images, settings=(*STUDY, "block_cut=second", name, *settings)
    )
    return compare.fn(config, pipeline.store.root)


def test_strategies_train_what_they_say_and_leave_the_rest(pipeline: Pipeline) -> None:
    first = run_comparison(pipeline, "seeds=[0]")
    lines = first.metrics
    assert list(lines) == ["scratch", "last_layer", "last_block", "full"]
    assert lines["last_layer"].largest_changes == {"first": 0.0, "second": 0.0}
    assert lines["last_block"].largest_changes == {"first": 0.0, "second": 0.0}
    assert min(lines["full"].largest_changes.values()) > 0
    assert min(lines["scratch"].largest_changes.values()) > 0
    trained = [line.num_trained for line in lines.values()]
    assert trained == [1827, 51, 1219, 1827]
    assert lines["full"].flops > lines["last_block"].flops > lines["last_layer"].flops
    assert lines["full"].once_flops == 0 < lines["last_block"].once_flops
    assert {line.split for line in lines.values()} == {"test"}
    page = Path(first.report).read_text()
    assert page.count("data:image/png") == 4  # kernels
    assert page.count("data:image/svg+xml") == 2  # curves, Pareto
    more = run_comparison(pipeline, "seeds=[0, 1]", "strategies=[last_layer]")
    assert [stage.status for stage in more.stages][-2:] == ["hit", "miss"]  # one more seed
    low, high = more.metrics["last_layer"].interval or (1.0, 0.0)
    assert low <= more.metrics["last_layer"].accuracy <= high


def test_the_rate_of_inner_layers_is_swept(pipeline: Pipeline) -> None:
    summary = run_comparison(pipeline, "seeds=[0]", "inner_rates=[0, 1]")
    assert list(summary.metrics) == ["inner x0", "inner x1"]
    with pytest.raises(ConfigError, match="inner_rates"):
        run_comparison(pipeline, "inner_rates=[-1]")


def test_a_curve_comes_from_one_pass_of_averages(pipeline: Pipeline) -> None:
    name = f"backbone.name={pipeline.backbone}"
    settings = (*STUDY, "cuts=[top, first]", "seeds=[0]", "finetuned=true", name)
    config = build_config(TransferabilityConfig, pipeline.images, settings=settings)
    summary = transferability.fn(config, pipeline.store.root)
    assert list(summary.metrics) == [
        "frozen first",
        "frozen top",
        "fine-tuned first",
        "fine-tuned top",
    ]
    again = transferability.fn(config, pipeline.store.root)
    assert {stage.status for stage in again.stages} == {"hit"}
    pipeline.extract("bottlenecks.cut=first", "bottlenecks.dtype=float32")
    with use_store(pipeline.store):
        dataset = dataset_stage(config.dataset)
        network = open_backbone(config.backbone, None)
        assert network.resolve_cut("first").activation_shape == (7, 7, 6)
        features = Features.of(dataset, config)
        pooled = features.at("first", pooled=True).open(["test"])
        whole = replace(features.at("first"), dtype="float32").open(["test"])
    images = np.arange(len(whole["test"]))
    np.testing.assert_allclose(
        pooled["test"].gather(images, 0),
        whole["test"].gather(images, 0).mean(axis=(1, 2)),
        rtol=2e-3,
        atol=1e-4,
    )
