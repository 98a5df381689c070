"""The anatomy and measurements stages of a survey."""

from pathlib import Path
from typing import Any

from headstart.config import MeasuringConfig
from headstart.tasks.progress import reporter
from headstart.tasks.running.devices import machine_fingerprint
from headstart.tasks.running.stage import Made, Stage
from headstart.tasks.store.artifacts import Manifest
from headstart.tasks.store.versions import arithmetic_versions
from headstart.tasks.surveying.anatomy import Anatomy
from headstart.tasks.surveying.child import run_child
from headstart.tasks.surveying.measuring import Measurement


class AnatomyManifest(Manifest):
    """What networks are made of."""

    networks: tuple[Anatomy, ...]


class MeasurementsManifest(Manifest):
    """How one backbone runs on this machine."""

    backbone: str
    measurements: tuple[Measurement, ...]


def _anatomy_key(names: tuple[str, ...]) -> dict[str, Any]:
    return {"names": names, **arithmetic_versions()}


def _dissect(folder: Path, names: tuple[str, ...]) -> Made:
    networks = []
    with reporter().track("dissecting", len(names), "networks") as advance:
        for line in run_child("anatomy", *names):
            networks.append(Anatomy.model_validate_json(line))
            advance(1)
    return Made(len(names), len(names), fields={"networks": tuple(networks)})


def _measurements_key(name: str, config: MeasuringConfig) -> dict[str, Any]:
    return {
        "backbone": name,
        "measuring": config,
        "machine": machine_fingerprint(),
        **arithmetic_versions(),
    }


def _measure(folder: Path, name: str, config: MeasuringConfig) -> Made:
    measurements = []
    sizes = ",".join(map(str, config.batch_sizes))
    with reporter().track(f"measuring {name}", len(config.batch_sizes), "batch sizes") as advance:
        for line in run_child("measure", name, sizes, str(config.seconds)):
            measurements.append(Measurement.model_validate_json(line))
            advance(1)
    return Made(
        len(measurements),
        len(measurements),
        fields={"backbone": name, "measurements": tuple(measurements)},
    )


def _describe_measurements(made: MeasurementsManifest) -> str:
    told = ", ".join(
        f"{one.images_per_s:,.0f} images/s at {one.batch_size}" for one in made.measurements
    )
    return f"{made.backbone}: {told}"


anatomy = Stage(
    "anatomy",
    1,
    AnatomyManifest,
    _dissect,
    _anatomy_key,
    lambda made: f"{made.num_rows:,} networks",
)
measurements = Stage(
    "measurements",
    2,
    MeasurementsManifest,
    _measure,
    _measurements_key,
    _describe_measurements,
)
