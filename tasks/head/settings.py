"""The settings of a training that decide its result, for its key."""

from typing import Any

from headstart.config import HeadConfig, TuningConfig


def _read_by_others(config: HeadConfig) -> set[str] | None:
    """Return the fields that a head reads which has no epochs; None of one that has."""
    if config.solver == "lbfgs":
        return {"kind", "solver", "class_weights", "seed"}
    if config.solver == "ridge":
        return {"kind", "solver", "seed"}
    return {"nearest_mean": {"kind"}, "knn": {"kind", "num_neighbors"}}.get(config.kind)


def settings_in_effect(config: HeadConfig | TuningConfig, *unused: str) -> dict[str, Any]:
    """Return the settings of a training for its key: what is not read is left out.

    Args:
        config: Configuration of the training.
        *unused: Names of further fields that this training does not read.

    Returns:
        JSON values; those of equal optimizers are equal.
    """
    if isinstance(config, HeadConfig):
        if (read := _read_by_others(config)) is not None:
            of_labels = {"min_precision"} - set(unused) if config.min_precision else set()
            scaling = {"scaling": "pareto"} if config.solver == "lbfgs" else {}
            return {**scaling, **config.model_dump(mode="json", include=read | of_labels)}
        unused = (*unused, "solver", "num_neighbors")  # as before there were others
    if config.optimizer != "sgd":
        unused = (*unused, "momentum")
    settings = config.model_dump(mode="json", exclude=set(unused))
    if config.optimizer == "adam":  # adamw by another name, see make_optimizer
        settings["optimizer"] = "adamw"
    return settings
