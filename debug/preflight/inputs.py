"""Rules about the data of a training as a whole: scale of inputs and targets, order, splits."""

import copy
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from headstart.debug.callsites import calling_site
from headstart.debug.diagnosis import Diagnosis
from headstart.debug.preflight.data import is_made_for
from headstart.debug.preflight.facts import Array, Facts, numbers, pick_rows
from headstart.debug.source.syntax import origin_of_argument
from headstart.debug.symptoms.trace import TrainingTrace

LARGE = 100.0
"""Values that reach the first weights beyond this, of either sign, were not scaled."""
RAISED = 10.0
"""... or from this on, where a column never comes near 0."""
OFF_CENTRE = 5.0
"""Mean over standard deviation of a column from which on it never comes near 0."""
TINY = 0.02
"""Greatest magnitude of inputs that were divided once too often."""
LARGE_TARGETS = 100.0
"""Targets of a regression beyond this, of either sign, were not scaled."""
MAX_BUFFER = 512
"""Rows of a shuffle's buffer that are read for one batch."""
SPLIT_FACTOR = 20.0
"""Range of the validation inputs over that of the training inputs, or the other way round, from
which on they were not prepared alike."""
BELOW = 0.25
"""Share of their size by which a twentieth of some pictures' pixels go below 0, from which on
pictures that never do were prepared otherwise."""
VALIDATION_PLACE = 7
"""Of ``validation_data`` among the arguments of ``fit``."""
MISSING_SHARE = 0.5
"""Share of the held-out rows of classes that training never sees, from which on the split is at
fault."""
MAX_CLASSES = 1000
MAX_RUN = 0.6
"""Share of the steps asked for below which a training whose data ended was cut short."""
FEWEST_STEPS, LARGE_BATCH = 10, 50
"""Steps in all, and batch size over epochs, at which the two were exchanged."""
MANY_EPOCHS = 10
SMALL_EPOCH = 0.1
"""Share of the batches up to which a training of fewer steps than batches is a mistake."""


def unscaled_inputs(facts: Facts) -> list[Diagnosis]:
    """Find inputs of large magnitude that reach the first weights, of either sign.

    Args:
        facts: What is known of the training.

    Returns:
        A finding, or none.
    """
    use = facts.first_weights
    values = None if use is None else numbers(use.input)
    if use is None or values is None or not values.size or not np.isfinite(values).all():
        return []
    columns = values.reshape(-1, values.shape[-1]).astype(np.float64)
    magnitude = float(np.abs(columns).max())
    means, deviations = columns.mean(axis=0), columns.std(axis=0)
    raised = (np.abs(means) > RAISED) & (np.abs(means) > OFF_CENTRE * deviations)
    is_small = magnitude < LARGE and not raised.any()
    if is_small or is_made_for(facts.model, use.layer, columns):
        return []
    sizes = np.abs(columns).max(axis=0)
    apart = float(sizes.max() / max(sizes.min(), 1e-12))
    spread = f"; columns differ by a factor of {apart:.3g}" if 100 < apart < 1e12 else ""
    return [
        Diagnosis(
            symptom="unscaled-input",
            cause=f"The inputs are not scaled (not normalised): values from {columns.min():.4g} to "
            f"{columns.max():.4g} (mean {columns.mean():.4g}) reach the first layer with weights, "
            f"{use.path!r}{spread}.",
            layer=None if facts.last is use else use.path,
            phase="data",
            confidence=0.93 if magnitude >= LARGE else 0.75,
            suggestions=(
                "pixels: divide by 255, or put keras.layers.Rescaling(1 / 255) first",
                "features and columns: standardise them (sklearn's StandardScaler, or "
                "keras.layers.Normalization)",
                "for a pretrained backbone use its own preprocess_input",
            ),
            evidence={"min": float(columns.min()), "max": float(columns.max()), "at": "fit"},
        )
    ]


def tiny_inputs(facts: Facts) -> list[Diagnosis]:
    """Find inputs that are nearly 0: most often divided by 255 twice.

    Args:
        facts: What is known of the training.

    Returns:
        A finding, or none.
    """
    if twice := _scaled_twice(facts):
        return twice
    use = facts.first_weights
    values = None if use is None else numbers(use.input)
    if use is None or values is None or not values.size or not np.isfinite(values).all():
        return []
    magnitude = float(np.abs(values).max())
    if magnitude > TINY:
        return []
    return [
        Diagnosis(
            symptom="inputs-nearly-zero",
            cause=f"The inputs that reach the first layer {use.path!r} are nearly 0: none exceeds "
            f"{magnitude:.3g}. Were they scaled (divided by 255) twice?",
            phase="data",
            confidence=0.92,
            suggestions=(
                "scale once: either in the data or by a Rescaling layer, not both",
                "standardise the columns",
            ),
            evidence={"max": magnitude},
        )
    ]


def _scaled_twice(facts: Facts) -> list[Diagnosis]:
    """Find a Rescaling layer for pixels that is given what was scaled before it.

    With an offset its outputs are not nearly 0, but they are nearly all the same.
    """
    for use in facts.uses:
        values = numbers(use.input) if use.kind == "Rescaling" else None
        if values is None or not values.size or not np.isfinite(values).all():
            continue
        spread = float(np.ptp(values)) * float(np.abs(np.asarray(use.layer.scale)).max())
        if 0.0 < spread <= TINY:
            return [
                Diagnosis(
                    symptom="inputs-nearly-zero",
                    cause=f"Rescaling {use.path!r} divides inputs that are scaled already (they "
                    f"are divided twice): they go up to {float(values.max()):.4g}, and what it "
                    f"gives differs by {spread:.3g} at most (nearly 0, but for its offset).",
                    layer=use.path,
                    phase="data",
                    confidence=0.95,
                    suggestions=("scale once: either in the data or by the Rescaling layer",),
                    evidence={"max": spread},
                )
            ]
    return []


def unscaled_targets(facts: Facts) -> list[Diagnosis]:
    """Find targets of a regression that a network cannot reach in the steps it is given.

    Args:
        facts: What is known of the training.

    Returns:
        A finding, or none.
    """
    y = facts.targets
    if y is None or facts.family not in ("mse", "mae", "huber", "log_cosh"):
        return []
    if not y.size or not np.isfinite(y).all() or float(np.abs(y).max()) < LARGE_TARGETS:
        return []
    reached = ""
    if facts.y_pred is not None and np.isfinite(facts.y_pred).all():
        reached = f", but the network's answers only from {facts.y_pred.min():.4g} to "
        reached += f"{facts.y_pred.max():.4g}"
    return [
        Diagnosis(
            symptom="unscaled-targets",
            cause=f"The targets are not scaled: they go from {y.min():.4g} to {y.max():.4g}"
            f"{reached}.",
            phase="data",
            confidence=0.85,
            suggestions=(
                "standardise the targets ((y - mean) / std) and undo it after predict",
                "or divide them by a round number (thousands, millions), or train on their log",
                "or raise the learning rate and train for many more epochs",
            ),
            evidence={"min": float(y.min()), "max": float(y.max())},
        )
    ]


def split_order(targets: Any, validation_split: float) -> list[Diagnosis]:
    """Find rows that are sorted by class, so that ``validation_split`` holds out classes whole.

    Args:
        targets: All targets in their order.
        validation_split: Share that ``fit`` cuts off the end, before it shuffles.

    Returns:
        A finding, or none.
    """
    y = numbers(targets)
    if y is None or not 0.0 < validation_split < 1.0 or len(y) < 10:
        return []
    labels = y.argmax(axis=-1) if y.ndim == 2 and y.shape[1] > 1 else y.reshape(len(y), -1)[:, 0]
    classes = np.unique(labels)
    if (labels != np.rint(labels)).any() or not 2 <= classes.size <= min(MAX_CLASSES, len(y) // 4):
        return []
    cut = int(len(y) * (1.0 - validation_split))
    known = set(labels[:cut].tolist())
    missing = float(np.mean([label not in known for label in labels[cut:].tolist()]))
    held_out = set(labels[cut:].tolist())
    one_sided = len(held_out) == 1 and (labels[1:] == labels[:-1]).mean() > 0.95
    if missing < MISSING_SHARE and not one_sided:
        return []
    never = sorted(held_out - known)
    effect = (
        f"which training never sees (class {', '.join(f'{label:g}' for label in never[:5])})"
        if never
        else f"all of one class ({held_out.pop():g})"
    )
    return [
        Diagnosis(
            symptom="sorted-validation-split",
            cause=f"The rows are sorted by class, and validation_split={validation_split:g} holds "
            f"out the last {len(y) - cut} of them before any shuffling: validation is on classes "
            f"{effect}.",
            phase="data",
            confidence=0.94,
            suggestions=(
                "shuffle inputs and labels together before fit "
                "(order = np.random.permutation(len(x)); x, y = x[order], y[order])",
                "or split with sklearn's train_test_split(stratify=y) and pass validation_data",
            ),
            evidence={"missing": missing, "at": "fit"},
        )
    ]


def too_few_rows(given: Mapping[str, Any], trace: TrainingTrace) -> list[Diagnosis]:
    """Find a ``fit`` that never saw most of its data, or whose data ran out.

    Args:
        given: What ``fit`` was given, by name.
        trace: The record of it.

    Returns:
        A finding, or none.
    """
    each, epochs = given.get("steps_per_epoch"), given.get("epochs") or 1
    if not each or not trace.has_finished or not trace.epochs:
        return []
    taken, wanted = len(trace.losses), int(each) * int(epochs)
    at_hand = _batches_at_hand(given)
    cut = [later - before for before, later in
           itertools.pairwise([*trace.epoch_starts, taken])]  # fmt: skip
    if taken < MAX_RUN * wanted and epochs > 1 and min(cut) < each == max(cut):
        return [
            _of_rows(
                "input-spent",
                f"The data ran out after {taken} of {wanted} training steps: they can be read only "
                f"once (a generator that ends, a data set without repeat), but {epochs} epochs of "
                f"{each} training steps are asked for. Later epochs have nothing to train on.",
                0.94,
                "make the generator endless (while True), or .repeat() the data set",
                "or leave out steps_per_epoch",
            )
        ]
    if at_hand is None or wanted >= at_hand or each >= at_hand * SMALL_EPOCH:
        return []
    few = _of_rows(
        "too-few-steps",
        f"Training sees only {wanted} of the {at_hand} batches available: steps_per_epoch "
        f"is {each}, so {epochs} epochs are {wanted} training steps and not {epochs} passes over "
        "the data.",
        0.9,
        f"leave out steps_per_epoch, or set it to {at_hand} (rows // batch_size)",
    )
    if each == 1 and epochs >= MANY_EPOCHS:  # nobody means epochs of one step
        few = replace(few, evidence={"at": "fit", "is_certain": True})
    return [few]


def exchanged(given: Mapping[str, Any], trace: TrainingTrace) -> list[Diagnosis]:
    """Find epochs and batch size that were given in each other's place.

    Args:
        given: What ``fit`` was given, by name.
        trace: The record of it.

    Returns:
        A finding, or none.
    """
    rows, size = numbers(given.get("x")), given.get("batch_size")
    epochs, steps = given.get("epochs") or 1, len(trace.losses)
    if (
        not trace.has_finished
        or rows is None
        or not size
        or steps > FEWEST_STEPS
        or size < LARGE_BATCH * epochs
    ):
        return []
    if size < len(rows) / 3:
        return []
    return [
        _of_rows(
            "too-few-steps",
            f"batch_size is {size} and epochs is {epochs}: with {len(rows)} rows that makes "
            f"{steps} training steps in all, too few to learn anything. Were the two swapped "
            "(fit(x, y, batch_size, epochs))?",
            0.9,
            f"model.fit(x, y, batch_size=32, epochs={size if size <= 1000 else 100})",
        )
    ]


def _batches_at_hand(given: Mapping[str, Any]) -> int | None:
    """Return how many batches one pass over the data has; None where that is not known."""
    x: Any = given.get("x")
    if hasattr(x, "element_spec") and hasattr(x, "cardinality"):
        for _ in range(20):
            count = int(x.cardinality())
            if count != -1:  # endless: what is repeated tells
                return count if count > 0 else None
            x = getattr(x, "_input_dataset", None)
            if x is None:
                return None
        return None
    if hasattr(x, "num_batches"):
        return int(x.num_batches) if x.num_batches else None
    rows = numbers(x)
    return None if rows is None else -(-len(rows) // int(given.get("batch_size") or 32))


def _of_rows(symptom: str, cause: str, confidence: float, *tries: str) -> Diagnosis:
    return Diagnosis(
        symptom=symptom,
        cause=cause,
        phase="data",
        severity="error" if symptom == "input-spent" else "warning",
        confidence=confidence,
        suggestions=tries,
        evidence={"at": "fit", "is_certain": False},
    )


def split_scale(x: Any, x_val: Any) -> list[Diagnosis]:
    """Find validation inputs that were not prepared as the training inputs were.

    Returns:
        A finding, or none.
    """
    train, held_out = _flat(x), _flat(x_val)
    if train is None or held_out is None:
        return []
    sizes = [float(np.percentile(np.abs(part), 99)) for part in (train, held_out)]
    if min(sizes) <= 0.0:
        return []
    is_shifted = np.ndim(x) == 4 and (_is_signed(train, held_out) or _is_signed(held_out, train))
    if max(sizes) / min(sizes) < SPLIT_FACTOR and not is_shifted:
        return []
    return [
        Diagnosis(
            symptom="split-scale",
            cause=f"Training and validation inputs are not scaled alike: training goes from "
            f"{train.min():.4g} to {train.max():.4g}, validation from {held_out.min():.4g} to "
            f"{held_out.max():.4g}. "
            + (
                "They go through two different preprocessings."
                if is_shifted
                else "One of them was divided or normalised, the other was not."
            ),
            phase="data",
            confidence=0.93,
            suggestions=(
                "prepare both by one function (the same preprocess_input, the same rescale), or "
                "put the scaling into the model (keras.layers.Rescaling, Normalization)",
            ),
            evidence={"train": sizes[0], "validation": sizes[1], "at": "fit"},
        ).at(origin_of_argument(calling_site(), "fit", VALIDATION_PLACE, "validation_data"))
    ]


def _is_signed(one: Array, other: Array) -> bool:
    """Tell whether pixels go well below 0 on one side, and never on the other."""
    low, high = np.percentile(one, (5, 99))
    return bool(low < -BELOW * max(abs(high), abs(low)) and other.min() >= 0.0)


def scale_of_splits(given: Mapping[str, Any], batches: Sequence[Any] = ()) -> list[Diagnosis]:
    """Find validation data that were not prepared as the training data were.

    Args:
        given: What ``fit`` was given, by name; of data sets a batch of each is compared.
        batches: The last batches it trained on.

    Returns:
        A finding, or none.
    """
    x: Any = given.get("x")
    held_out: Any = given.get("validation_data")
    if isinstance(held_out, tuple | list) and held_out and given.get("y") is not None:
        return split_scale(x, held_out[0])
    if isinstance(held_out, keras.utils.PyDataset) and batches:
        shown = _first_batch(held_out)
        return [] if shown is None else split_scale(batches[-1][0], shown[0])
    if not all(isinstance(getattr(one, "element_spec", None), tuple) for one in (x, held_out)):
        return []
    if not batches or not _may_be_read_again(held_out):
        return []
    return split_scale(batches[-1][0], next(iter(held_out.take(1)))[0].numpy())


def _may_be_read_again(dataset: Any) -> bool:
    """Tell whether a batch of a validation set can be drawn so that the program does not notice.

    A generator of Python's (a flat map, to TensorFlow) may be a stream that gives each row once,
    and a long shuffle has to fill its buffer. The order of validation rows changes nothing.
    """
    if int(dataset.cardinality()) < 0:
        return False
    while dataset is not None:
        name = type(dataset).__name__
        if any(part in name for part in ("Generator", "Flat", "Interleave")):
            return False
        if "Shuffle" in name and int(getattr(dataset, "_buffer_size", 0)) > MAX_BUFFER:
            return False
        dataset = getattr(dataset, "_input_dataset", None)
    return True


def _first_batch(stream: Any) -> Any:
    """Return the first batch of one of Keras's own picture streams; None of another kind.

    It is asked as a copy, with numpy's generator put back: the program must not notice.
    """
    if not type(stream).__module__.startswith("keras."):
        return None
    state = np.random.get_state()  # noqa: NPY002
    try:
        return copy.copy(stream)[0]
    finally:
        np.random.set_state(state)  # noqa: NPY002


def _flat(values: Any) -> Array | None:
    array = numbers(values)
    if array is None or array.dtype.kind not in "fiu" or not array.size:
        return None
    flat = pick_rows(array, 256).astype(np.float64).reshape(-1)
    return flat if np.isfinite(flat).all() else None
