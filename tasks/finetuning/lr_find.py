"""A range test for fine-tuning, on cached bottlenecks."""

from headstart.config import HeadConfig, TuningConfig
from headstart.tasks.bottlenecks.features import Features
from headstart.tasks.finetuning.network import extend, falling, group_layers
from headstart.tasks.finetuning.training import compile_network
from headstart.tasks.head.batches import TrainingBatches
from headstart.tasks.head.lr_range import ADAM_RATES, RATES, RangeTest, range_test, trainer
from headstart.tasks.head.stage import HeadManifest, open_head


def tuning_range_test(
    features: Features,
    head: HeadManifest,
    start: str,
    tuning: TuningConfig,
    head_config: HeadConfig,
    num_steps: int,
) -> RangeTest:
    """Train everything from a cut on with a rising rate."""
    rows = features.at(start).open(("train",))["train"]
    model, backbone = open_head(head), features.network
    groups = group_layers(model, backbone)
    network = extend(model, groups, backbone, start, features.start)
    fit = rows.target.fit(rows.labels)
    factors = falling(len(network.groups), tuning.rate_decay)
    settings = head_config.model_copy(update={"batch_size": tuning.batch_size})
    trained = compile_network(
        network, factors, tuning.learning_rate, rows.target, fit, tuning, settings
    )
    batches = TrainingBatches(rows, settings, head.num_classes, fit).endless()
    return range_test(
        trainer(trained, trained.optimizer, batches),
        num_steps,
        RATES if tuning.optimizer == "sgd" else ADAM_RATES,
    )
