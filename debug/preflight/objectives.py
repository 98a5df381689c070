"""What a compiled Keras model is trained for, read from its loss, labels and predictions."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Kind = Literal["sparse", "categorical", "binary", "other"]

_KINDS: dict[str, Kind] = {
    "sparse_categorical_crossentropy": "sparse",
    "sparsecategoricalcrossentropy": "sparse",
    "categorical_crossentropy": "categorical",
    "categoricalcrossentropy": "categorical",
    "binary_crossentropy": "binary",
    "binarycrossentropy": "binary",
}
_FAMILIES: dict[str, str] = {
    "meansquarederror": "mse", "mse": "mse",
    "meanabsoluteerror": "mae", "mae": "mae",
    "meansquaredlogarithmicerror": "msle", "msle": "msle",
    "meanabsolutepercentageerror": "mape", "mape": "mape",
    "huber": "huber", "logcosh": "log_cosh", "poisson": "poisson",
    "kldivergence": "kl_divergence", "kld": "kl_divergence",
    "hinge": "hinge", "squaredhinge": "hinge", "categoricalhinge": "categorical_hinge",
    "binaryfocalcrossentropy": "binary_crossentropy",
    "categoricalfocalcrossentropy": "categorical_crossentropy",
    "binarycrossentropy": "binary_crossentropy",
    "categoricalcrossentropy": "categorical_crossentropy",
    "sparsecategoricalcrossentropy": "sparse_categorical_crossentropy",
}  # fmt: skip
"""Plain name of each of Keras's losses, by its name without case and underscores."""
REGRESSIONS = ("mse", "mae", "mape", "huber", "log_cosh")
"""Losses that compare numbers, whatever their range."""
OWN_LOSS, OWN_OPTIMIZER = "_headstart_loss", "_headstart_optimizer"
"""Where a model keeps those of a loop that is not Keras's own."""


@dataclass(frozen=True)
class Objective:
    """The loss of a model, as far as its name says.

    Args:
        kind: ``sparse`` (class indices), ``categorical`` (one-hot rows), ``binary``, or ``other``
            for every loss that is not one of Keras's cross-entropies.
        from_logits: Whether the loss applies softmax or sigmoid itself.
        name: The loss's own name.
        ignored_class: A label that counts for nothing (``ignore_class``).
    """

    kind: Kind
    from_logits: bool
    name: str
    ignored_class: int | None = None

    @property
    def is_classification(self) -> bool:
        """True for the three cross-entropies."""
        return self.kind != "other"

    def num_classes(self, prediction_shape: tuple[int | None, ...]) -> int:
        """Return how many classes predictions of a shape tell apart.

        Args:
            prediction_shape: Shape of the model's output, ``[N, ..., C]``.

        Returns:
            C, 2 for a single binary output, 0 where this is no classifier or C is not known.
        """
        if not self.is_classification or not prediction_shape:
            return 0
        last = prediction_shape[-1] or 0
        if self.kind == "binary":
            return 2 if last == 1 else 0  # several sigmoids are labels that do not exclude others
        return last

    def labels(self, y: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Return class indices of labels as the loss takes them.

        Args:
            y: Labels, ``[N]``, ``[N, 1]``, ``[N, ..., C]`` one-hot or ``[N, 1]`` binary.

        Returns:
            int64 indices, one a prediction, flattened; empty where the loss is no classifier's.
        """
        if not self.is_classification or y.size == 0:
            return np.zeros(0, np.int64)
        if self.kind == "categorical" and y.ndim > 1 and y.shape[-1] > 1:
            return np.asarray(y.argmax(axis=-1).reshape(-1), np.int64)
        if not np.isfinite(y.astype(np.float64)).all():
            return np.zeros(0, np.int64)
        return np.asarray(np.rint(y.astype(np.float64)).reshape(-1), np.int64)

    def predictions(self, y_pred: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Return the predicted class of each row.

        Args:
            y_pred: The model's output, ``[N, ..., C]``, or ``[N, 1]`` where binary.

        Returns:
            int64 indices, flattened; empty where the loss is no classifier's.
        """
        if not self.num_classes(y_pred.shape):
            return np.zeros(0, np.int64)
        if self.kind == "binary":
            threshold = 0.0 if self.from_logits else 0.5
            return np.asarray((y_pred > threshold).reshape(-1), np.int64)
        return np.asarray(y_pred.argmax(axis=-1).reshape(-1), np.int64)


def objective_of(model: Any) -> Objective:
    """Read the objective of a compiled model.

    Args:
        model: A compiled Keras model.

    Returns:
        Its objective; ``other`` for own, several or missing losses.
    """
    loss = single_loss(model)
    if isinstance(loss, str):
        return Objective(_KINDS.get(loss.lower(), "other"), False, loss)
    name = getattr(loss, "__name__", None) or type(loss).__name__
    kind = _KINDS.get(name.lower(), "other")
    is_keras = type(loss).__module__.startswith("keras.") or getattr(
        loss, "__module__", ""
    ).startswith("keras.")
    if kind == "other" or not is_keras:
        return Objective("other", False, name)
    config = loss.get_config() if hasattr(loss, "get_config") else {}
    ignored = config.get("ignore_class")
    return Objective(kind, bool(config.get("from_logits", False)), name, ignored)


def single_loss(model: Any) -> Any:
    """Return the loss of a compiled model, unpacked where a dictionary or list holds just one."""
    loss: Any = getattr(model, "loss", None) or vars(model).get(OWN_LOSS)
    if isinstance(loss, dict | list | tuple) and len(loss) == 1:
        return next(iter(loss.values() if isinstance(loss, dict) else loss))
    return loss


def optimizer_of(model: Any) -> Any:
    """Return the optimizer of a model: that of ``compile``, or of the loop that trains it.

    Returns:
        The optimizer, unpacked where one scales the loss of another; None where none is known.
    """
    optimizer = getattr(model, "optimizer", None) or vars(model).get(OWN_OPTIMIZER)
    return getattr(optimizer, "inner_optimizer", optimizer)


def loss_family(loss: Any) -> str:
    """Return the plain name of one of Keras's losses.

    Args:
        loss: What ``compile`` was given: a name, a function or an object.

    Returns:
        Its name, such as ``mse``; empty for own, several or missing losses.
    """
    if isinstance(loss, str):
        return _FAMILIES.get(loss.lower().replace("_", ""), "")
    home = getattr(loss, "__module__", None) or type(loss).__module__
    name = getattr(loss, "__name__", None) or type(loss).__name__
    if not home.startswith("keras."):
        return ""
    return _FAMILIES.get(name.lower().replace("_", ""), "")
