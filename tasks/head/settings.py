"""The settings of a training that decide its result, for its key."""

from typing import Any

from headstart.config import HeadConfig, TuningConfig

SOLVED_BY = {"solver", "class_weights", "seed"}
"""The fields that a solver reads."""


def settings_in_effect(config: HeadConfig | TuningConfig, *unused: str) -> dict[str, Any]:
    """Return the settings of a training for its key: what is not read is left out.

    Args:
        config: Of the training.
        *unused: Names of further fields that this training does not read.

    Returns:
        JSON values; those of equal optimizers are equal.
    """
    if isinstance(config, HeadConfig):
        if config.solver == "lbfgs":
            return {
                "kind": config.kind,
                "scaling": "pareto",
                **config.model_dump(mode="json", include=SOLVED_BY),
            }
        if config.kind == "nearest_mean":
            return {"kind": config.kind}
        if config.kind == "knn":
            return config.model_dump(mode="json", include={"kind", "num_neighbors"})
        unused = (*unused, "solver", "num_neighbors")  # as before there were others
    if config.optimizer != "sgd":
        unused = (*unused, "momentum")
    settings = config.model_dump(mode="json", exclude=set(unused))
    if config.optimizer == "adam":  # adamw by another name, see make_optimizer
        settings["optimizer"] = "adamw"
    return settings
