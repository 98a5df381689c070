"""Which engine computes a pass: what was asked for, or the fastest as measured on this machine.

No engine is fastest everywhere: between two processors the order turns round by factors of two.
So each that is installed computes a batch of the run's own views, is held against TensorFlow's
rows, and is timed; what was found is remembered in the store by processor, versions and network.
"""

import json
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from headstart.config import BottleneckConfig, EngineName, Precision
from headstart.errors import BackboneError
from headstart.tasks.backbones.backbone import Backbone
from headstart.tasks.backbones.converting import to_onnx
from headstart.tasks.backbones.engines import OTHERS, TITLES, Extract, engine_version, open_engine
from headstart.tasks.bottlenecks.parity import differences, tolerance_of
from headstart.tasks.running.devices import cpu_features
from headstart.tasks.store.remembered import remember, remembered
from headstart.tasks.store.versions import arithmetic_versions

MIN_FLOPS = 1e12
"""A pass of fewer is over before another engine could be opened: a modern core does 5e10 a second
and more, and a conversion takes some seconds."""
NUM_ROUNDS = 3
"""Turns in which the engines are timed one after the other, so that other load strikes all."""
BEATEN = 1.5
"""An engine that takes so many times what the fastest takes is not timed again."""
MIN_GAIN = 1.1
"""An engine must be expected to take so many times less for the pass than TensorFlow."""
_KIND = "engines"


class Pass(NamedTuple):
    """What is to be computed.

    Attributes:
        pooled: Whether activations are averaged over their positions.
        num_rows: How many views go through it.
        sample: Reads a batch of them, uint8 [n, size, size, 3].
    """

    network: Backbone
    cuts: Sequence[str]
    pooled: bool
    num_rows: int
    sample: Callable[[], npt.NDArray[np.uint8]]


class Choice(NamedTuple):
    """An engine, the network opened in it, and words on why it was taken."""

    name: EngineName
    extract: Extract
    words: str


class _Found(NamedTuple):
    """What measuring found: seconds to open and seconds a row, an engine; or why it is out."""

    open_s: dict[str, float]
    row_s: dict[str, float]
    refused: dict[str, str]


def choose_engine(frozen: Any, work: Pass, config: BottleneckConfig) -> Choice:
    """Choose what computes a pass, and open the network in it.

    Args:
        frozen: The network in TensorFlow, from `headstart.tasks.bottlenecks.extraction.freeze`.
        work: What is to be computed.
        config: Which engine and precision were asked for.

    Returns:
        The engine. TensorFlow where the one asked for cannot read the network, or gives other
        rows; the words say so.

    Raises:
        BackboneError: The engine asked for is not installed, or none computes in the precision.
    """
    wanted = config.engine
    if config.precision != "float32":
        return _open_precise(frozen, work, config.precision)
    if wanted == "tensorflow":
        return _tensorflow(frozen)
    if wanted != "auto":
        return _open_wanted(frozen, work, wanted)
    if tf.config.list_physical_devices("GPU"):
        return _tensorflow(frozen, ", which uses the GPU")
    others = [name for name in OTHERS if engine_version(name)]
    if not others:
        return _tensorflow(frozen, ": no other engine is installed")
    flops = max(work.network.resolve_cut(name).flops_before for name in work.cuts)
    if flops * work.num_rows < MIN_FLOPS:
        return _tensorflow(frozen, ": too little work to open another engine")
    return _fastest(frozen, work, config, others)


def open_named(frozen: Any, name: str, precision: Precision) -> Extract:
    """Open a network in an engine that was chosen elsewhere, by a run whose worker this is."""
    if name == "tensorflow":
        extract: Extract = frozen
        return extract
    return open_engine(name, to_onnx(frozen), precision)


def _tensorflow(frozen: Any, why: str = "") -> Choice:
    return Choice("tensorflow", frozen, f"{TITLES['tensorflow']}{why}")


def _open_wanted(frozen: Any, work: Pass, name: EngineName) -> Choice:
    if engine_version(name) is None:
        open_engine(name, b"")  # says what to install
    try:
        extract = open_engine(name, to_onnx(frozen))
    except BackboneError as error:
        return _tensorflow(frozen, f": {error.problem} ({error.received})")
    pixels = work.sample()
    if reason := _differs(extract(pixels), frozen(tf.constant(pixels)), "float32"):
        return _tensorflow(frozen, f": {TITLES[name]} {reason}")
    return Choice(name, extract, f"{TITLES[name]}, as requested")


def _open_precise(frozen: Any, work: Pass, precision: Precision) -> Choice:
    extract = open_engine("openvino", to_onnx(frozen), precision)
    pixels = work.sample()
    if reason := _differs(extract(pixels), frozen(tf.constant(pixels)), precision):
        raise BackboneError(
            f"this network cannot be computed in {precision}: it {reason}",
            f"bottlenecks.precision={precision}",
            "leave bottlenecks.precision out: float32 is exact",
        )
    return Choice("openvino", extract, f"{TITLES['openvino']} in {precision}")


def _fastest(frozen: Any, work: Pass, config: BottleneckConfig, others: list[EngineName]) -> Choice:
    about = {
        "processor": cpu_features(),
        "engines": {name: engine_version(name) for name in others},
        "cuts": [work.network.fingerprint(name) for name in work.cuts],
        "pooled": work.pooled,
        "batch_size": config.batch_size,
        **arithmetic_versions(),
    }
    opened: dict[str, Extract] = {}
    found = _recall(about)
    if found is None:
        found = _measure(frozen, work.sample(), others, opened)
        remember(_KIND, about, json.dumps(found._asdict()))
    expected_s = {
        name: found.open_s[name] + work.num_rows * row_s for name, row_s in found.row_s.items()
    }
    usual_s = expected_s.pop("tensorflow")
    why = "".join(f"; {TITLES[name]} {words}" for name, words in found.refused.items())
    best = min(others, key=lambda name: expected_s.get(name, np.inf))
    if not expected_s or usual_s < MIN_GAIN * expected_s[best]:
        return _tensorflow(frozen, f", the fastest here for this many rows{why}")
    times = found.row_s["tensorflow"] / found.row_s[best]
    try:
        extract = opened.get(best) or open_engine(best, to_onnx(frozen))
    except BackboneError as error:
        return _tensorflow(frozen, f": {error.problem} ({error.received})")
    words = f"{TITLES[best]}, {times:.1f} times as fast here as TensorFlow{why}"
    return Choice(best, extract, words)


def _recall(about: dict[str, Any]) -> _Found | None:
    text = remembered(_KIND, about)
    return None if text is None else _Found(**json.loads(text))


def _measure(
    frozen: Any,
    pixels: npt.NDArray[np.uint8],
    others: Sequence[EngineName],
    opened: dict[str, Extract],
) -> _Found:
    """Open, check and time the engines; those that are fit are left in `opened`."""
    found = _Found({}, {}, {})
    started_s = time.perf_counter()
    expected = [np.asarray(output) for output in frozen(tf.constant(pixels))]
    found.open_s["tensorflow"] = time.perf_counter() - started_s  # it optimises its graph
    opened["tensorflow"] = frozen
    try:
        started_s = time.perf_counter()
        model = to_onnx(frozen)
        convert_s = time.perf_counter() - started_s
    except BackboneError as error:
        found.refused.update(
            dict.fromkeys(others, f"is not used: {error.problem} ({error.received})")
        )
        others = ()
    for name in others:
        started_s = time.perf_counter()
        try:
            extract = open_engine(name, model)
            outputs = extract(pixels)
        except BackboneError as error:
            found.refused[name] = f"is not used: {error.problem} ({error.received})"
            continue
        found.open_s[name] = convert_s + time.perf_counter() - started_s
        if reason := _differs(outputs, expected, "float32"):
            found.refused[name] = reason
        else:
            opened[name] = extract
    # The fastest turn of each: other load on the machine only ever makes one longer.
    fastest_s = dict.fromkeys(opened, np.inf)
    for _ in range(NUM_ROUNDS):
        limit_s = BEATEN * min(fastest_s.values())
        for one in [name for name, took_s in fastest_s.items() if took_s <= limit_s]:
            started_s = time.perf_counter()
            for output in opened[one](tf.constant(pixels)):
                np.asarray(output)
            fastest_s[one] = min(fastest_s[one], time.perf_counter() - started_s)
    found.row_s.update({name: took_s / len(pixels) for name, took_s in fastest_s.items()})
    return found


def _differs(outputs: Sequence[Any], expected: Sequence[Any], precision: Precision) -> str:
    """Say how an engine's activations differ from TensorFlow's; "" within the tolerance."""
    tolerance = tolerance_of("float32", precision)
    for output, live in zip(outputs, expected, strict=True):
        found, right = np.asarray(output), np.asarray(live)
        if found.shape != right.shape:
            return f"gives other shapes than TensorFlow ({found.shape}, {right.shape})"
        worst = float(differences(found, right, np.dtype(np.float32), precision).max())
        if not worst <= tolerance:  # also where it is NaN
            return f"differs from TensorFlow by {worst:.2g} of an activation's row"
    return ""
