"""Engines besides TensorFlow: they give its rows, and are taken where they are faster."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from pydantic import ValidationError

from headstart.config import BottleneckConfig
from headstart.errors import BackboneError
from headstart.tasks.backbones import engines
from headstart.tasks.backbones.backbone import Backbone
from headstart.tasks.backbones.converting import to_onnx
from headstart.tasks.backbones.engines import OTHERS, open_engine
from headstart.tasks.backbones.preprocessing import Preprocessing
from headstart.tasks.bottlenecks import choosing
from headstart.tasks.bottlenecks.choosing import Choice, Pass, choose_engine
from headstart.tasks.bottlenecks.extraction import freeze
from headstart.tasks.bottlenecks.parity import BFLOAT16_TOLERANCE, tolerance_of
from headstart.tasks.store.artifacts import Store
from tests.pipeline import NUM_IMAGES, SIDE, Pipeline, tiny_network

CUTS = ["second", "top"]
PIXELS = np.random.default_rng(0).integers(0, 256, (5, SIDE, SIDE, 3), np.uint8)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return Backbone("tiny", SIDE, Preprocessing("lite"), tiny_network())


@pytest.fixture(scope="module")
def frozen(backbone: Backbone) -> Any:
    return freeze(backbone, CUTS)


def no_gpu(*_: Any) -> list[Any]:
    return []


@pytest.fixture
def work(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> Pass:
    """Return a pass that is worth measuring, on a machine without a GPU."""
    monkeypatch.setattr(choosing, "MIN_FLOPS", 0.0)
    monkeypatch.setattr(tf.config, "list_physical_devices", no_gpu)
    return Pass(backbone, CUTS, False, 1_000_000_000, lambda: PIXELS)


def choose(frozen: Any, work: Pass, **fields: Any) -> Choice:
    return choose_engine(frozen, work, BottleneckConfig(**fields))


@pytest.mark.parametrize("name", OTHERS)
def test_an_engine_gives_the_rows_of_tensorflow_at_every_cut(name: str, frozen: Any) -> None:
    extract = open_engine(name, to_onnx(frozen))
    for count in (5, 2):  # a pass ends in a smaller batch
        outputs = extract(tf.constant(PIXELS[:count]))
        for output, live in zip(outputs, frozen(tf.constant(PIXELS[:count])), strict=True):
            assert output.dtype == np.float32
            np.testing.assert_allclose(output, live.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", OTHERS)
def test_what_an_engine_has_given_stays_when_it_goes_on(name: str, frozen: Any) -> None:
    extract = open_engine(name, to_onnx(frozen))
    first = extract(PIXELS)
    kept = [np.array(output) for output in first]
    extract(255 - PIXELS)
    for output, copy in zip(first, kept, strict=True):
        np.testing.assert_array_equal(output, copy)


def test_the_fastest_engine_is_measured_once_and_remembered(
    frozen: Any, work: Pass, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tensorflow(pixels: Any) -> Any:
        clock["add"](3.0)
        return frozen(pixels)

    now = [0.0]
    clock = {"add": lambda seconds: now.__setitem__(0, now[0] + seconds)}
    tensorflow.graph, tensorflow.inputs, tensorflow.outputs = (  # type: ignore[attr-defined]
        frozen.graph,
        frozen.inputs,
        frozen.outputs,
    )
    paces = {"onnxruntime": 2.0, "openvino": 1.0}
    original, opened = choosing.open_engine, []

    def opening(name: str, *arguments: Any) -> Any:
        compute = original(name, *arguments)
        opened.append(name)
        clock["add"](100.0)

        def call(pixels: Any) -> Any:
            clock["add"](paces[name])
            return compute(pixels)

        return call

    monkeypatch.setattr(choosing, "open_engine", opening)
    monkeypatch.setattr(choosing.time, "perf_counter", lambda: now[0])
    choice = choose(tensorflow, work)
    assert (choice.name, choice.words) == (
        "openvino",
        "OpenVINO, 3.0 times as fast here as TensorFlow",
    )
    assert opened == list(OTHERS)
    assert choose(tensorflow, work).name == "openvino"
    assert opened == [*OTHERS, "openvino"]  # and nothing was measured
    few = work._replace(num_rows=1)
    assert choose(tensorflow, few).words == "TensorFlow, the fastest here for this many rows"
    monkeypatch.setattr(choosing, "cpu_features", lambda: ["another"])
    paces["onnxruntime"] = 0.5
    assert choose(tensorflow, work).name == "onnxruntime"


def test_an_engine_that_gives_other_rows_is_left_out_with_words(
    frozen: Any, work: Pass, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = choosing.open_engine

    def wrong(*arguments: Any) -> Any:
        compute = original(*arguments)
        return lambda pixels: [1.01 * output for output in compute(pixels)]

    monkeypatch.setattr(choosing, "open_engine", wrong)
    for asked in ("auto", *OTHERS):
        choice = choose(frozen, work, engine=asked)
        assert choice.name == "tensorflow"
        assert "differs from TensorFlow by 0.01 of an activation's row" in choice.words


def test_a_network_that_cannot_be_converted_stays_with_tensorflow(
    frozen: Any, work: Pass, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Any) -> bytes:
        raise BackboneError("a network cannot be converted to ONNX", "Tensorflow op [Foo]")

    monkeypatch.setattr(choosing, "to_onnx", refuse)
    for asked in ("auto", *OTHERS):
        choice = choose(frozen, work, engine=asked)
        assert (choice.name, choice.extract) == ("tensorflow", frozen)
        assert "cannot be converted to ONNX (Tensorflow op [Foo])" in choice.words


def test_an_operation_that_onnx_lacks_is_named() -> None:
    signature = tf.TensorSpec([None, 4], tf.uint8)
    function = tf.function(lambda x: [tf.strings.length(tf.strings.as_string(x))])
    with pytest.raises(BackboneError, match="cannot be converted to ONNX"):
        open_engine("onnxruntime", to_onnx(function.get_concrete_function(signature)))


def test_small_work_and_gpus_stay_with_tensorflow(
    frozen: Any, work: Pass, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise AssertionError("an engine was opened")

    monkeypatch.setattr(choosing, "open_engine", fail)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
    assert choose(frozen, work).words == "TensorFlow, which uses the GPU"
    monkeypatch.setattr(tf.config, "list_physical_devices", no_gpu)
    monkeypatch.setattr(choosing, "MIN_FLOPS", 1e30)
    assert "too little work" in choose(frozen, work).words
    assert choose(frozen, work, engine="tensorflow").words == "TensorFlow"


@pytest.mark.parametrize("fields", [{"engine": "openvino"}, {"precision": "bfloat16"}])
def test_an_engine_that_was_asked_for_and_is_not_installed_says_what_to_install(
    frozen: Any, work: Pass, fields: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = {"openvino": None, "onnxruntime": "1"}
    monkeypatch.setattr(engines, "engine_version", absent.get)
    monkeypatch.setattr(choosing, "engine_version", absent.get)
    with pytest.raises(BackboneError, match="OpenVINO is not installed") as caught:
        choose(frozen, work, **fields)
    assert "pip install" in caught.value.next_step


def test_bfloat16_is_computed_as_such_or_refused(
    frozen: Any, work: Pass, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    if {"avx512_bf16", "amx_bf16", "bf16"} & set(map(str, choosing.cpu_features())):
        choice = choose(frozen, work, precision="bfloat16")
        assert choice.words == "OpenVINO in bfloat16"
    else:
        with pytest.raises(BackboneError, match="does not compute in bfloat16"):
            choose(frozen, work, precision="bfloat16")


def test_bfloat16_is_not_for_the_other_engines() -> None:
    with pytest.raises(ValidationError, match="engine=openvino"):
        BottleneckConfig(engine="onnxruntime", precision="bfloat16")


@pytest.mark.parametrize("name", OTHERS)
def test_a_run_by_another_engine_finds_the_rows_of_tensorflow_and_passes_the_gate(
    name: str, pipeline: Pipeline
) -> None:
    made = pipeline.extract(f"bottlenecks.engine={name}", "bottlenecks.dtype=float32")
    assert (made.status, made.rows_computed) == ("miss", NUM_IMAGES)
    (manifest,) = [
        json.loads(path.read_text())
        for path in Path(pipeline.store.root / "manifests" / "bottlenecks").glob("*.json")
    ]
    assert "as requested" in json.dumps(manifest)
    # Another engine is no other key: its rows are these, up to noise that the gate bounds.
    again = pipeline.extract("bottlenecks.engine=tensorflow", "bottlenecks.dtype=float32")
    assert again.status == "hit"


def test_rows_of_another_precision_are_other_rows(pipeline: Pipeline) -> None:
    (exact,) = pipeline.collections()
    (rough,) = pipeline.collections("bottlenecks.precision=bfloat16")
    assert exact.digest != rough.digest
    assert pipeline.collections("bottlenecks.engine=openvino")[0].digest == exact.digest
    assert tolerance_of("float16", "bfloat16") == BFLOAT16_TOLERANCE


def test_workers_take_the_engine_that_the_driver_chose(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headstart.config import SpreadConfig
    from headstart.tasks.bottlenecks import pieces
    from headstart.tasks.running.spreading import use_spreading

    opened: list[Sequence[str]] = []
    original = pieces.open_named

    def opening(frozen: Any, name: str, precision: Any) -> Any:
        opened.append((name, precision))
        return original(frozen, name, precision)

    monkeypatch.setattr(pieces, "open_named", opening)
    pieces._opened.cache_clear()
    with use_spreading(SpreadConfig(runner="thread", num_workers=2)):
        made = pipeline.extract("bottlenecks.engine=onnxruntime")
    assert made.rows_computed == NUM_IMAGES
    assert opened == [("onnxruntime", "float32")]


def rounded(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    result: npt.NDArray[np.float32] = tf.cast(tf.cast(values, tf.bfloat16), tf.float32).numpy()
    return result


def test_the_tolerance_of_bfloat16_lets_its_rounding_pass_and_no_wrong_row(
    frozen: Any, backbone: Backbone
) -> None:
    live = frozen(tf.constant(PIXELS))[1].numpy()
    assert choosing._differs([rounded(live)], [live], "bfloat16") == ""
    assert choosing._differs([rounded(live)], [live], "float32") != ""
    assert choosing._differs([1.5 * live], [live], "bfloat16") != ""
    # One activation far off is bfloat16's rounding; of float32 it is a wrong row.
    spike = live.copy()
    spike[0, np.argmin(spike[0])] += 0.1 * spike[0].max()
    assert choosing._differs([spike], [live], "bfloat16") == ""
    assert choosing._differs([spike], [live], "float32") != ""
    assert choosing._differs([np.full_like(live, np.nan)], [live], "bfloat16") != ""


def test_the_proof_of_rough_rows_compares_with_float32_ones_and_says_so(
    finished: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headstart.tasks.bottlenecks.features import Features
    from headstart.tasks.dataset.stage import stage as dataset_stage
    from headstart.tasks.export.stage import BehindBackbone
    from headstart.tasks.store.artifacts import use_store

    exact, rough = finished.config(), finished.config("bottlenecks.precision=bfloat16")
    with use_store(finished.store):
        dataset = dataset_stage(exact.dataset)
        images, rows = BehindBackbone(Features.of(dataset, exact)).proof(3)
        subject = BehindBackbone(Features.of(dataset, rough))
        same_images, anew = subject.proof(3)  # no row of bfloat16 is in the store
    assert (same_images, anew.dtype) == (images, rows.dtype)
    np.testing.assert_allclose(anew.astype(np.float32), rows.astype(np.float32), rtol=1e-3)
    assert "float32" in subject.proven_against
    assert BehindBackbone(Features.of(dataset, exact)).proven_against == ""
