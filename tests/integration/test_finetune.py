"""The ladder on a tiny network: rungs, resuming, undoing, exporting."""

from pathlib import Path

from headstart.config import FinetuneConfig, build_config
from headstart.flows.finetune import FinetuneSummary, finetune
from tests.pipeline import QUICK, Pipeline

LADDER = (
    "ladder.cuts=[third, second]",
    "tuning.epochs=3",
    "tuning.batch_size=8",
    "tuning.learning_rate=0.01",
)


def ladder_config(pipeline: Pipeline, *settings: str) -> FinetuneConfig:
    """Return a quick ladder over the pipeline's images."""
    name = f"backbone.name={pipeline.backbone}"
    return build_config(
        FinetuneConfig, pipeline.images, settings=(*QUICK, *LADDER, name, *settings)
    )


def climb(pipeline: Pipeline, *settings: str, out: Path | None = None) -> FinetuneSummary:
    """Run the flow, without Prefect."""
    summary = finetune.fn(ladder_config(pipeline, *settings), pipeline.store.root, out)
    assert isinstance(summary, FinetuneSummary)
    return summary


def test_a_ladder_makes_one_pass_and_a_second_run_is_all_hits(pipeline: Pipeline) -> None:
    first = climb(pipeline)
    assert pipeline.num_passed() == 36
    assert [rung.start for rung in first.rungs] == ["top", "third", "second", "pixels"]
    assert [rung.status for rung in first.rungs][0::3] == ["kept", "not tried"]
    assert Path(first.model).exists()
    assert Path(first.ladder).exists()
    second = climb(pipeline)
    assert {outcome.status for outcome in second.stages} == {"hit"}
    assert pipeline.num_passed() == 0
    assert second.rungs == first.rungs
