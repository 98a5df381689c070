"""What the Python API returns: a finished run, and the bottlenecks of a data set."""

import base64
import html
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.errors import ConfigError
from headstart.reading import MAX_TABLE_BYTES, read_regular
from headstart.tasks.store.sealing import read_sealed, unseal


def as_table(records: Sequence[Mapping[str, Any]]) -> Any:
    """Return a DataFrame where pandas is installed, else a list of dicts."""
    rows = [dict(record) for record in records]
    try:
        import pandas as pd
    except ImportError:
        return rows
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class Run:
    """A finished run of `train`, `finetune` or `scratch`.

    Attributes:
        run_dir: Folder with the model, the report and the figures.
        metrics: Figures by split: ``metrics["val"]["accuracy"]``.
        stages: How each stage went: name, status, seconds, rows, rows_computed.
        seconds: Duration of the whole run.
    """

    run_dir: Path
    metrics: dict[str, Any]
    stages: list[dict[str, Any]]
    seconds: float

    @classmethod
    def load(cls, run_dir: str | Path) -> "Run":
        """Open the folder of a finished run.

        Raises:
            ConfigError: There is no finished run in the folder.
        """
        folder = Path(run_dir).expanduser().absolute()
        try:
            fields = read_sealed(folder / "run.json")
            return cls(folder, fields["metrics"], fields["stages"], fields["seconds"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                "this is not the folder of a finished run",
                f"{folder}: {error}",
                "give the folder that `headstart train` named",
            ) from None

    @property
    def model_path(self) -> Path:
        """The exported .keras file."""
        return self.run_dir / "model.keras"

    @cached_property
    def model(self) -> Any:
        """The Keras model: images uint8 [n, H, W, 3] -> probabilities [n, num_classes]."""
        from headstart.tasks.running.tensorflow import import_tensorflow

        import_tensorflow()
        from headstart.tasks.export.model_files import read_whole_keras

        return read_whole_keras(self.model_path)

    @property
    def report(self) -> Path:
        """The report page."""
        return self.run_dir / "report.html"

    @property
    def history(self) -> Any:
        """One row an epoch: losses, accuracies, learning rate (a DataFrame where pandas is)."""
        return as_table(self._read("history.json"))

    @property
    def top_losses(self) -> Any:
        """The held-out images with the highest loss (a DataFrame where pandas is installed)."""
        return as_table(self._read("top_losses.json"))

    @property
    def tried(self) -> Any:
        """What a training with a budget tried, in order (a DataFrame where pandas is installed)."""
        return as_table(self._read("run.json").get("tried", []))

    @property
    def split(self) -> str:
        """The split that the run is judged by: test where there is one, else val."""
        return "test" if "test" in self.metrics else "val"

    @property
    def class_names(self) -> list[str]:
        """The classes, labels or numbers, in the order of the model's answers."""
        from headstart.tasks.export.writing import CARD_NAME

        return list(self._read(CARD_NAME)["class_names"])

    @property
    def confusion_matrix(self) -> Any:
        """Numbers of images, [true class][predicted class] (a DataFrame where pandas is).

        Raises:
            ConfigError: The run is not of classes, or no image was held out.
        """
        figures = self.metrics and self._figures(self.split)
        if not figures or "confusion" not in figures:
            raise ConfigError(
                "the run has no confusion matrix",
                f"{self.run_dir}: "
                + ("no image was held out" if not figures else "it learned labels or numbers"),
                "see metrics, or top_losses",
            )
        counts = np.array(figures["confusion"], dtype=np.int64)
        try:
            import pandas as pd
        except ImportError:
            return counts
        names = self.class_names
        return pd.DataFrame(counts, pd.Index(names, name="true"), pd.Index(names, name="predicted"))

    @cached_property
    def _predictor(self) -> Any:
        from headstart.tasks.running.tensorflow import import_tensorflow

        import_tensorflow()
        from headstart.tasks.export.predict import Predictor

        return Predictor.load(self.run_dir)

    def predict(self, images: Any) -> Any:
        """Classify images.

        Args:
            images: The path or the bytes of an image file, a Pillow image, or an array of RGB
                pixels uint8 [H, W, 3]; or several: a folder, an array [n, H, W, 3], or a list,
                tuple or generator of single ones.

        Returns:
            A `headstart.tasks.export.predict.Prediction` (label, probability, top); a list of
            them where several images were given. Files of a folder that cannot be read are
            left out, with a warning.

        Raises:
            DatasetError: An image is not usable: the only one, or one of several that do not
                come from a folder.
        """
        if isinstance(images, str | Path) and Path(images).is_dir():
            return list(self._predictor.stream([images], _warn))
        from headstart.tasks.export.predict import as_items

        items, is_single = as_items(images)
        predictions = self._predictor.predict(items)
        return predictions[0] if is_single else predictions

    def embed(self, images: Any) -> npt.NDArray[np.float32]:
        """Compute the bottlenecks that the run's head was trained on.

        Args:
            images: What `predict` takes; of a folder all its images, by name.

        Returns:
            float32 [n, C], an image a row; spatial bottlenecks are averaged over positions.
        """
        return self._embedder.embed(images)  # type: ignore[no-any-return]

    @cached_property
    def _embedder(self) -> Any:
        from headstart.tasks.running.tensorflow import import_tensorflow

        import_tensorflow()
        from headstart.tasks.export.embedding import Embedder

        return Embedder.load(self.model_path)

    def _read(self, name: str) -> Any:
        path = self.run_dir / name
        try:
            found = json.loads(read_regular(path, MAX_TABLE_BYTES))
            return unseal(found) if isinstance(found, dict) else found
        except (OSError, ValueError, RecursionError) as error:  # the last: nested too deep
            raise ConfigError(
                "a file of the run cannot be read",
                f"{path}: {error}",
                "copy the run's folder again, or run the command again: finished results are hits",
            ) from None

    def _figures(self, split: str) -> Any:
        return self._read("metrics.json")[split]

    def _repr_html_(self) -> str:
        """Show accuracy, curves and the confusion matrix where a notebook shows the run."""
        from headstart.tasks.evaluation.figures import confusion_png, curves_png
        from headstart.tasks.evaluation.judges import judge_of
        from headstart.tasks.evaluation.metrics import SplitMetrics
        from headstart.tasks.head.epochs import EpochFigures

        parts = [f"<b>{html.escape(self.run_dir.name)}</b>"]
        for split, figures in self.metrics.items():
            judge = judge_of(figures)
            share = f"accuracy {figures['accuracy']:.1%}" if judge.main == "accuracy" else None
            parts.append(html.escape(f"{split} {share or judge.line(figures)}"))
        history = [EpochFigures(**epoch) for epoch in self._read("history.json")]
        pictures = [curves_png(history)]
        if self.metrics and "accuracy" in self.metrics[self.split]:
            figures = SplitMetrics.model_validate(self._figures(self.split))
            pictures.append(confusion_png(figures))
        for picture in pictures:
            data = base64.b64encode(picture).decode()
            parts.append(f'<img src="data:image/png;base64,{data}" style="max-width:100%">')
        return "<br>".join(parts)


def _warn(path: str, reason: str) -> None:
    warnings.warn(f"skipped {path}: {reason}", stacklevel=4)


@dataclass(frozen=True)
class SplitBottlenecks:
    """The cached bottlenecks of one split.

    Attributes:
        rows: What reads them from the store.
        labels: int32 [n], the class of each image.
    """

    rows: Any
    labels: npt.NDArray[np.int32]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def numpy(self, view: int = 0) -> npt.NDArray[Any]:
        """Read all bottlenecks of a view.

        Args:
            view: 0 for the plain view, 1 to n for the augmented ones.

        Returns:
            [n, *shape of the cut's output] of the storage type, float16 by default.
        """
        return np.asarray(self.rows.gather(np.arange(len(self)), view))

    def dataset(
        self, batch_size: int = 32, *, view: int = 0, shuffle_seed: int | None = None
    ) -> Any:
        """Return a ``tf.data.Dataset`` of (bottleneck float32, label int32) batches.

        Args:
            batch_size: Rows of a batch; the last one may be smaller.
            view: 0 for the plain view, 1 to n for the augmented ones.
            shuffle_seed: Shuffle anew in each epoch, from this seed; None keeps the order.
        """
        import tensorflow as tf

        features = self.numpy(view).astype(np.float32)
        made = tf.data.Dataset.from_tensor_slices((features, self.labels))
        if shuffle_seed is not None:
            made = made.shuffle(len(self), seed=shuffle_seed)
        return made.batch(batch_size).prefetch(tf.data.AUTOTUNE)


@dataclass(frozen=True)
class Bottlenecks:
    """The cached bottlenecks of a data set, by split: ``cached["train"].dataset()``.

    Attributes:
        splits: The splits that have images: train, val, test.
        class_names: The name of each label.
        stages: How each stage went, as in `Run`: a hit computed nothing.
    """

    splits: dict[str, SplitBottlenecks]
    class_names: list[str]
    stages: list[dict[str, Any]]

    def __getitem__(self, split: str) -> SplitBottlenecks:
        """Return the bottlenecks of a split."""
        return self.splits[split]
