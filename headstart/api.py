"""headstart from Python: ``run = headstart.train("images/"); run.predict("x.jpg")``."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from headstart.config import TransferConfig, load_config
from headstart.tasks.progress import Reporter


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        run_dir: Folder with the model, the report and the figures.
        metrics: Figures by split: ``metrics["val"]["accuracy"]``.
        stages: How each stage went: name, status, seconds, rows, rows_computed.
        seconds: Of the whole run.
    """

    run_dir: Path
    metrics: dict[str, Any]
    stages: list[dict[str, Any]]
    seconds: float

    @property
    def model(self) -> Path:
        """The exported .keras file: images uint8 [n, H, W, 3] -> probabilities [n, classes]."""
        return self.run_dir / "model.keras"

    @property
    def report(self) -> Path:
        """The report page."""
        return self.run_dir / "report.html"

    @cached_property
    def _predictor(self) -> Any:
        from headstart.tasks.export.predict import Predictor

        return Predictor.load(self.run_dir)

    def predict(self, images: Any) -> Any:
        """Classify images.

        Args:
            images: A path, bytes of an image file, a uint8 array [H, W, 3] or a Pillow image,
                or a list of these.

        Returns:
            A `headstart.tasks.export.predict.Prediction` (label, probability, top), or a list of
            them where a list was given.
        """
        if isinstance(images, list | tuple):
            return self._predictor.predict(images)
        return self._predictor.predict([images])[0]


def train(
    images: str | Path | None = None,
    *,
    config: TransferConfig | str | Path | None = None,
    settings: Iterable[str] | str = (),
    store: str | Path | None = None,
    out: str | Path | None = None,
    record: bool = False,
    overwrite: bool = False,
) -> Run:
    """Train a classifier on a folder of images.

    Args:
        images: A folder with one sub-folder a class, or a CSV or Parquet manifest.
        config: A YAML file, or a configuration made in Python. `images` and `settings` beat what
            it says.
        settings: "section.field=value" strings, or one, as ``--set`` takes them.
        store: Folder of the store; the default one where not given.
        out: Folder for the results; a new one under the store where not given.
        record: Record the run with a temporary Prefect server where none is reachable.
        overwrite: Replace a finished run that `out` holds.

    Returns:
        The finished run.

    Raises:
        HeadstartError: The configuration, the images or the training are not usable; the
            message says what to do.
    """
    from headstart.launch import refuse_overwriting, run_flow

    if not overwrite:
        refuse_overwriting(Path(out) if out else None)
    made = config if isinstance(config, TransferConfig) else None
    file = Path(config) if config and not isinstance(config, TransferConfig) else None
    config = load_config(images, file, settings, base=made)
    summary = run_flow(
        "transfer",
        config,
        Path(store) if store else None,
        Path(out) if out else None,
        record,
        Reporter(),
    )
    fields = summary.model_dump(mode="json")
    return Run(Path(summary.run_dir), fields["metrics"], fields["stages"], summary.seconds)
