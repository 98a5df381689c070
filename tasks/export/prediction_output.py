"""Predictions written as they come: JSON lines, CSV or text for people."""

import csv
import json
import os
from collections.abc import Callable, Iterable
from typing import Any, Literal, TextIO, get_args

from headstart.errors import ConfigError, DatasetError
from headstart.tasks.dataset.printable import printable
from headstart.tasks.export.answers import ANSWERS, Answers
from headstart.tasks.export.model_files import ModelCard
from headstart.tasks.export.predict import Predictor

OutputFormat = Literal["text", "json", "csv"]
"""text: a line an image for people; json: an object a line; csv: with a header."""

_Write = Callable[[str, Any, str], None]  # path, prediction or None, reason


def predict_to(
    stream: TextIO,
    predictor: Predictor,
    paths: Iterable[str | os.PathLike[str]],
    output_format: OutputFormat,
    top_k: int,
) -> tuple[int, int]:
    """Predict files and folders, and write a line for each image as it comes.

    JSON: ``{"path", "label", "probability", "top": [{"label", "probability"}, ...]}`` a line, or
    ``{"path", "error"}`` for a file that cannot be used. CSV: ``path,label,probability`` and the
    same for the further classes (``label_2,probability_2,...``), then ``error``. Labels and
    numbers are written as `headstart.tasks.export.answers` says. Bytes of a path that are not
    UTF-8 are written as escapes.

    Args:
        stream: Gets one line an image.
        predictor: The loaded model.
        paths: Image files, and folders of them.
        output_format: Form of the lines.
        top_k: Number of classes named for each image.

    Raises:
        ConfigError: There is no such format, or ``top_k`` is not positive.
        DatasetError: Not one image could be predicted.
    """
    write = _writer(stream, output_format, predictor.card, top_k)
    num_predicted, first_bad, num_bad = 0, "", 0

    def on_bad(path: str, reason: str) -> None:
        nonlocal num_bad, first_bad
        num_bad += 1
        first_bad = first_bad or f"{printable(path)}: {reason}"
        write(path, None, reason)

    for prediction in predictor.stream(paths, on_bad, top_k):
        num_predicted += 1
        write(prediction.path or "", prediction, "")
    if not num_predicted:
        raise DatasetError(
            "no image could be predicted",
            f"{num_bad:,} unusable, the first {first_bad}" if num_bad else "no paths",
            "give image files, or folders with images in them",
        )
    return num_predicted, num_bad


def _writer(stream: TextIO, output_format: str, card: ModelCard, top_k: int) -> _Write:
    if output_format not in get_args(OutputFormat) or top_k < 1:
        raise ConfigError(
            f"predictions can only be written as {', '.join(get_args(OutputFormat))}, of 1 "
            "class or more",
            f"format {output_format!r}, top_k {top_k}",
        )
    if output_format == "json":
        return _json_writer(stream, ANSWERS[card.target])
    if output_format == "csv":
        return _csv_writer(stream, card, min(top_k, len(card.class_names)))
    return _text_writer(stream, ANSWERS[card.target])


def _json_writer(stream: TextIO, answers: Answers = ANSWERS["class"]) -> _Write:
    # Escapes of JSON's own, where the stream would put others, which are not JSON.
    is_unicode = (getattr(stream, "encoding", None) or "utf-8").lower().startswith("utf")

    def write(path: str, prediction: Any, reason: str) -> None:
        line: dict[str, Any] = {"path": _utf8(path)}
        if prediction is None:
            line["error"] = reason
        else:
            line |= answers.fields(prediction)
        print(json.dumps(line, ensure_ascii=not is_unicode), file=stream, flush=True)

    return write


def _csv_writer(stream: TextIO, card: ModelCard, top_k: int) -> _Write:
    table = csv.writer(stream, lineterminator="\n")
    answers = ANSWERS[card.target]
    columns = answers.columns(card, top_k)
    table.writerow(["path", *columns, "error"])

    def write(path: str, prediction: Any, reason: str) -> None:
        cells: list[Any] = [""] * len(columns)
        if prediction is not None:
            cells = answers.cells(card, prediction, top_k)
        table.writerow([_utf8(path), *cells, reason])
        stream.flush()

    return write


def _text_writer(stream: TextIO, answers: Answers = ANSWERS["class"]) -> _Write:
    def write(path: str, prediction: Any, reason: str) -> None:
        says = f"unusable: {reason}"
        if prediction is not None:
            says = answers.text(prediction)
        print(f"{printable(path)}: {says}", file=stream, flush=True)

    return write


def _utf8(path: str) -> str:
    """Escape only the bytes of a name that are not UTF-8; JSON and CSV quote the rest."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
