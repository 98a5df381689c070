"""The configuration of a run: one frozen pydantic model per stage, and one per flow.

The same models are the CLI's options (``--set head.kind=mlp``), the YAML file
(``--config``) and the form of a Prefect deployment. They import nothing heavy.
"""

from headstart.config.auditing import AuditConfig, ChecksConfig
from headstart.config.augmentations import (
    Augmentation,
    ColorJitter,
    Cutout,
    Flip,
    PadAndRandomCrop,
    RandomResizedCrop,
    Rotation,
)
from headstart.config.base import SPLITS, Config, Split, TargetKind
from headstart.config.budget import Attempt, BudgetConfig
from headstart.config.finetune import (
    CompareConfig,
    FinetuneConfig,
    LadderConfig,
    StudyConfig,
    TransferabilityConfig,
    TuningConfig,
)
from headstart.config.loading import CONFIG_OF, build_config, load_config
from headstart.config.ranking import (
    BaselineConfig,
    CandidatesConfig,
    RankConfig,
    ScoringConfig,
    SourceConfig,
)
from headstart.config.retrain import PromotionConfig, RetrainConfig
from headstart.config.scratch import (
    EpochViewsConfig,
    NetworkConfig,
    ScratchConfig,
    ScratchDatasetConfig,
    ScratchTrainingConfig,
)
from headstart.config.spread import SpreadConfig
from headstart.config.surveying import MeasuringConfig, SurveyConfig
from headstart.config.sweep import SearchConfig, SweepConfig
from headstart.config.transfer import (
    BackboneConfig,
    BottleneckConfig,
    DatasetConfig,
    EngineName,
    EvaluationConfig,
    ExportConfig,
    HeadConfig,
    Precision,
    ReadingConfig,
    TransferConfig,
    ViewsConfig,
)

__all__ = [
    "CONFIG_OF",
    "SPLITS",
    "Attempt",
    "AuditConfig",
    "Augmentation",
    "BackboneConfig",
    "BaselineConfig",
    "BottleneckConfig",
    "BudgetConfig",
    "CandidatesConfig",
    "ChecksConfig",
    "ColorJitter",
    "CompareConfig",
    "Config",
    "Cutout",
    "DatasetConfig",
    "EngineName",
    "EpochViewsConfig",
    "EvaluationConfig",
    "ExportConfig",
    "FinetuneConfig",
    "Flip",
    "HeadConfig",
    "LadderConfig",
    "MeasuringConfig",
    "NetworkConfig",
    "PadAndRandomCrop",
    "Precision",
    "PromotionConfig",
    "RandomResizedCrop",
    "RankConfig",
    "ReadingConfig",
    "RetrainConfig",
    "Rotation",
    "ScoringConfig",
    "ScratchConfig",
    "ScratchDatasetConfig",
    "ScratchTrainingConfig",
    "SearchConfig",
    "SourceConfig",
    "Split",
    "SpreadConfig",
    "StudyConfig",
    "SurveyConfig",
    "SweepConfig",
    "TargetKind",
    "TransferConfig",
    "TransferabilityConfig",
    "TuningConfig",
    "ViewsConfig",
    "build_config",
    "load_config",
]
