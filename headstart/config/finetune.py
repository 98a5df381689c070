"""Configuration of the ladder, the comparison and the transferability curve."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from headstart.config.base import (
    BatchSize,
    Config,
    Epochs,
    LearningRate,
    Momentum,
    Patience,
    Seed,
    WeightDecay,
)
from headstart.config.spread import SpreadConfig
from headstart.config.transfer import (
    BackboneConfig,
    BottleneckConfig,
    DatasetConfig,
    EvaluationConfig,
    HeadConfig,
    TransferConfig,
    ViewsConfig,
)


def _each_once(values: tuple[Any, ...]) -> tuple[Any, ...]:
    # The same training twice is one result, not two that agree.
    if len(set(values)) < len(values):
        raise ValueError(f"each once, but {', '.join(map(str, values))} repeats one")
    return values


EachOnce = AfterValidator(_each_once)


class TuningConfig(Config):
    """How layers of the backbone are fine-tuned."""

    epochs: Epochs = 6
    """Maximum number of epochs; early stopping may end sooner."""
    batch_size: BatchSize = 32
    """Rows per training step."""
    optimizer: Literal["adamw", "sgd"] = "sgd"
    """sgd has Nesterov momentum; adamw is adam with decoupled weight decay."""
    learning_rate: LearningRate = 0.03
    """Peak learning rate of the head; each group of layers below has a lower one. The default suits
    sgd; for adamw use 1e-3."""
    rate_decay: float = Field(3.0, ge=1.0, le=100.0)
    """Factor by which each earlier group of layers has a lower learning rate; 3 to 10 is usual, 1
    makes all equal."""
    warm_up_share: float = Field(0.1, ge=0.0, lt=1.0)
    """Share of the steps in which the rate rises from 0, after each unfreezing."""
    clip_norm: float | None = Field(5.0, ge=1e-10, le=1e10)
    """Largest norm of the gradient of all variables together; null for no limit."""
    momentum: Momentum = 0.9
    """Momentum of sgd (Nesterov)."""
    weight_decay: WeightDecay = 5e-4
    """Decoupled weight decay of kernels: each training step shrinks them by learning rate times
    this."""
    batch_norm: Literal["inference", "training"] = "inference"
    """inference: its statistics stay those of the pretrained network, and its scale and offset
    train; training: it uses and updates the batches' statistics."""
    patience: Patience = 3
    """Epochs without improvement before training stops; 0 never stops early. The weights of the
    best epoch are kept either way."""


class LadderConfig(Config):
    """Which rungs there are, and whether the last one trains everything."""

    num_rungs: int = Field(2, ge=0, le=10)
    """Number of cached rungs below the head, if cuts are not given: the rung before the last begins
    with an eighth of the backbone's arithmetic behind it, the last with a quarter, and so on."""
    cuts: tuple[str, ...] | None = None
    """Where the cached rungs begin, from the top down (`headstart cuts BACKBONE` lists names)."""
    end_to_end: Literal["auto", "always", "never"] = "auto"
    """A last rung that trains the whole network on views. auto: where there is a GPU."""


class FinetuneConfig(TransferConfig):
    """Everything that `headstart finetune` can be told."""

    ladder: LadderConfig = LadderConfig()
    tuning: TuningConfig = TuningConfig()

    @model_validator(mode="after")
    def _begin_with_a_trained_head(self) -> "FinetuneConfig":
        self.budget.refuse("finetune")
        if not self.head.is_trained:
            raise ValueError(f"finetune needs a trained head, not {self.head.kind}")
        return self


class StudyConfig(Config):
    """What studies share: they train many networks and export none."""

    dataset: DatasetConfig
    views: ViewsConfig = ViewsConfig()
    backbone: BackboneConfig = BackboneConfig()
    bottlenecks: BottleneckConfig = BottleneckConfig()
    head: HeadConfig = HeadConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    tuning: TuningConfig = TuningConfig(patience=0)
    seeds: Annotated[tuple[Seed, ...], EachOnce] = Field((0, 1, 2), min_length=1, max_length=1000)
    """Each strategy is trained once per seed (initial weights, order, dropout)."""
    spread: SpreadConfig = SpreadConfig()

    _unread: ClassVar[dict[str, str]] = {
        "bottlenecks.cut": "a study chooses its cuts itself",
        "bottlenecks.extra_cuts": "a study chooses its cuts itself",
        "head.kind": "the head is one dense layer",
        "head.hidden_units": "the head is one dense layer",
        "head.num_neighbors": "the head is one dense layer",
        "head.solver": "all strategies train by small steps",
        "head.epochs": "tuning.epochs is",
        "head.schedule": "tuning.warm_up_share is, and then the rate falls as a cosine",
        "head.momentum": "tuning.momentum is",
        "head.patience": "tuning.patience is",
        "head.seed": "seeds is",
        "evaluation.top_k": "studies compare accuracies",
        "evaluation.num_calibration_bins": "studies compare accuracies",
        "evaluation.num_top_losses": "studies compare accuracies",
    }
    """Fields of the sections above that have no effect here, and why or what has."""

    @model_validator(mode="after")
    def _refuse_what_is_not_read(self) -> "StudyConfig":
        for name, instead in self._unread.items():
            section, _, field = name.partition(".")
            given = getattr(self, section)
            if getattr(given, field) != type(given).model_fields[field].default:
                raise ValueError(f"{name} has no effect in a study: {instead}")
        if self.head.optimizer == "adam":
            raise ValueError("head.optimizer is adamw or sgd in a study, not adam")
        return self


Strategy = Literal["scratch", "last_layer", "last_block", "full"]


class CompareConfig(StudyConfig):
    """Everything that `headstart compare` can be told."""

    strategies: Annotated[tuple[Strategy, ...], EachOnce] = Field(
        ("scratch", "last_layer", "last_block", "full"), min_length=1
    )
    """scratch: the whole network from random weights; last_layer: a dense layer on the frozen
    backbone; last_block: the layers behind `block_cut` too; full: the whole network from
    pretrained weights."""
    block_cut: str | None = None
    """Cut where the last block begins; by default one with about an eighth of the FLOPs behind
    it."""
    scratch_learning_rate: LearningRate = 0.05
    """Peak learning rate of strategy scratch, for all layers; the others use
    `tuning.learning_rate`."""
    inner_rates: Annotated[tuple[Annotated[float, Field(ge=0.0, le=10.0)], ...], EachOnce] = ()
    """Instead of comparing strategies, train the last block with each of these learning rates,
    given as multiples of the head's."""


class TransferabilityConfig(StudyConfig):
    """Everything that `headstart transferability` can be told."""

    cuts: tuple[str, ...] | None = Field(None, min_length=1)
    """Cuts to try; by default `num_cuts` spread over the backbone."""
    num_cuts: int = Field(6, ge=2, le=100)
    """Number of cuts to spread over the backbone, including the top."""
    finetuned: bool = False
    """Also train the layers up to each cut, end to end on views."""
