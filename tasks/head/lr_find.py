"""A range test for a head, on cached bottlenecks."""

from headstart.config import HeadConfig
from headstart.errors import ConfigError
from headstart.tasks.bottlenecks.features import Features
from headstart.tasks.head.batches import TrainingBatches
from headstart.tasks.head.lr_range import ADAM_RATES, MOST, RATES, RangeTest, range_test, trainer
from headstart.tasks.head.training import build_head, compile_head


def head_range_test(features: Features, config: HeadConfig, num_steps: int) -> RangeTest:
    """Train a new head with a rising rate.

    Args:
        features: Its bottlenecks, all of them cached.
        config: Configuration of the head; the rate of its schedule's peak is looked for.
        num_steps: Steps from the lowest to the highest rate.

    Raises:
        ConfigError: Such a head is not trained by steps.
    """
    if not config.is_trained or config.solver != "minibatch":
        kind = (
            f"head.kind={config.kind}" if not config.is_trained else f"head.solver={config.solver}"
        )
        raise ConfigError("this head has no learning rate", kind, "leave that setting out")
    rows = features.open(("train",))["train"]
    num_classes = len(features.class_names)
    rows.target.check(rows.labels, None, num_classes)
    fit = rows.target.fit(rows.labels)
    tail = features.network.tail(features.start) if config.kind == "tail" else None
    head = build_head(config, rows.shape, num_classes, tail)
    steady = config.model_copy(update={"schedule": "constant"})
    compile_head(head, steady, len(rows), rows.target, fit, one_by_one=True)
    batches = TrainingBatches(rows, config, num_classes, fit).endless()
    return range_test(
        trainer(head, head.optimizer, batches),
        num_steps,
        RATES if config.optimizer == "sgd" else ADAM_RATES,
        MOST,
    )
