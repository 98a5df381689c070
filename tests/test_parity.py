"""The parity gate: it lets right rows pass, and throws wrong ones out of the store."""

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from headstart.errors import BackboneError
from headstart.tasks.backbones.backbone import Backbone
from headstart.tasks.backbones.preprocessing import Preprocessing
from headstart.tasks.bottlenecks.parity import TOLERANCE, Sample, check_parity
from headstart.tasks.store.artifacts import Store
from headstart.tasks.store.fingerprint import bytes_digest
from headstart.tasks.store.records import RowCollection, RowId
from headstart.tasks.views.addresses import plain_rows
from tests.pipeline import NUM_IMAGES, SIDE, Pipeline, add_images, tiny_network

ROWS = [RowId(bytes_digest(bytes([number])), 0) for number in range(4)]
PIXELS = np.random.default_rng(0).integers(0, 256, (len(ROWS), SIDE, SIDE, 3), np.uint8)
SAMPLE = Sample(ROWS, PIXELS)
Values = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return Backbone("tiny", SIDE, Preprocessing("none"), tiny_network())


def compute(backbone: Backbone, cut: str = "top") -> Values:
    live = keras.tree.flatten(backbone.extractor([cut])(tf.constant(PIXELS), training=False))
    values: Values = live[0].numpy()
    return values


def keep(store: Store, values: Values, dtype: str = "float32") -> RowCollection:
    collection = RowCollection(store, "bottlenecks", "rows", values.shape[1:], dtype)
    with collection.lock(), collection.writer(len(ROWS)) as writer:
        for row_id, row in zip(ROWS, values.astype(dtype), strict=True):
            writer.write(row_id, row)
    return collection


def off_by(values: Values, share: float, row: int) -> Values:
    """Change one activation of a row by a share of the row's largest."""
    changed = values.copy()
    changed[row].flat[3] += share * np.abs(values[row]).max()
    return changed


@pytest.mark.parametrize("cut", ["first", "top"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_what_the_backbone_computes_passes(
    store: Store, backbone: Backbone, cut: str, dtype: str
) -> None:
    collection = keep(store, compute(backbone, cut), dtype)
    worst = check_parity(backbone, SAMPLE, {cut: collection})
    assert worst <= (2**-11 if dtype == "float16" else 1e-6)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_difference_within_the_tolerance_is_returned(
    store: Store, backbone: Backbone, dtype: str
) -> None:
    share = TOLERANCE[dtype] / 2
    collection = keep(store, off_by(compute(backbone), share, row=2), dtype)
    worst = check_parity(backbone, SAMPLE, {"top": collection})
    assert worst == pytest.approx(share, abs=2**-11 if dtype == "float16" else 1e-6)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_larger_difference_names_cut_and_row(
    store: Store, backbone: Backbone, dtype: str
) -> None:
    collection = keep(store, off_by(compute(backbone), 3 * TOLERANCE[dtype], row=2), dtype)
    with pytest.raises(BackboneError) as caught:
        check_parity(backbone, SAMPLE, {"top": collection})
    assert "at top" in caught.value.problem
    assert f"{TOLERANCE[dtype]:g}" in caught.value.problem
    assert f"image {ROWS[2].image_digest}, view 0" in caught.value.received
    assert collection.digest[:12] in caught.value.received


def test_rows_in_another_order_fail(store: Store, backbone: Backbone) -> None:
    collection = keep(store, compute(backbone)[::-1])
    with pytest.raises(BackboneError):
        check_parity(backbone, SAMPLE, {"top": collection})


def test_a_wrong_row_at_a_further_cut_fails(store: Store, backbone: Backbone) -> None:
    right = keep(store, compute(backbone))
    wrong = keep(store, off_by(compute(backbone, "second"), 0.1, row=0))
    with pytest.raises(BackboneError, match="at second"):
        check_parity(backbone, SAMPLE, {"top": right, "second": wrong})


def test_a_stored_nan_counts_as_a_difference(store: Store, backbone: Backbone) -> None:
    values = compute(backbone)
    values[1, 5] = np.nan
    collection = keep(store, values)
    with pytest.raises(BackboneError, match=f"nan for image {ROWS[1].image_digest}"):
        check_parity(backbone, SAMPLE, {"top": collection})


def test_a_computed_nan_counts_as_a_difference_also_where_nan_is_stored(store: Store) -> None:
    network = tiny_network()
    kernel, bias = network.get_layer("third").get_weights()
    network.get_layer("third").set_weights([kernel, np.full_like(bias, np.nan)])
    broken = Backbone("broken", SIDE, Preprocessing("none"), network)
    values = compute(broken)
    assert np.isnan(values).all()
    with pytest.raises(BackboneError, match="nan for image"):
        check_parity(broken, SAMPLE, {"top": keep(store, values)})


def test_rows_of_zeros_pass_where_the_backbone_computes_zeros(store: Store) -> None:
    network = tiny_network()
    kernel, bias = network.get_layer("third").get_weights()
    network.get_layer("third").set_weights([kernel, np.full_like(bias, -1e6)])
    dead = Backbone("dead", SIDE, Preprocessing("none"), network)
    zeros = compute(dead)
    assert not zeros.any()
    assert check_parity(dead, SAMPLE, {"top": keep(store, zeros)}) == 0.0
    with pytest.raises(BackboneError):
        check_parity(dead, SAMPLE, {"top": keep(store, zeros + 50, "float16")})


FAINT = Sample(ROWS, np.concatenate([np.zeros_like(PIXELS[:1]), PIXELS[1:]]))
"""The first image is black, and its activations are only what a bias makes of it."""


def with_bias(bias: float, scale: float) -> tuple[Backbone, Values]:
    network = tiny_network(scale=scale)
    layer = network.get_layer("third")
    layer.set_weights([layer.get_weights()[0], np.linspace(0, bias, 16, dtype=np.float32)])
    backbone = Backbone("faint", SIDE, Preprocessing("none"), network)
    live = keras.tree.flatten(backbone.extractor(["top"])(tf.constant(FAINT.pixels)))
    return backbone, live[0].numpy()


@pytest.mark.parametrize("bias", [1e-5, 1e-7, 1e-9])
def test_a_row_where_float16_has_few_steps_passes_among_others(store: Store, bias: float) -> None:
    backbone, values = with_bias(bias, scale=4.0)
    assert 0 < np.abs(values[0]).max() < 1.1 * bias < 0.1 < values[1:].max()
    collection = keep(store, values, "float16")
    assert check_parity(backbone, FAINT, {"top": collection}) <= 2**-11
    wrong = keep(store, off_by(values, 1e-6 / bias, row=0))
    with pytest.raises(BackboneError):
        check_parity(backbone, FAINT, {"top": wrong})


def test_a_backbone_that_is_too_faint_for_float16_throughout_fails(store: Store) -> None:
    backbone, values = with_bias(1e-7, scale=1e-7)
    assert 0 < np.abs(values).max() < 1e-6
    with pytest.raises(BackboneError, match=r"bottlenecks.dtype=float32"):
        check_parity(backbone, FAINT, {"top": keep(store, values, "float16")})
    assert check_parity(backbone, FAINT, {"top": keep(store, values)}) <= TOLERANCE["float32"]


def test_a_run_throws_wrong_rows_out_and_the_next_computes_them_anew(pipeline: Pipeline) -> None:
    row_ids = plain_rows(pipeline.index().digests)
    (collection,) = pipeline.collections()
    with collection.lock(), collection.writer(len(row_ids)) as writer:
        for row_id in row_ids:
            writer.write(row_id, np.full(collection.shape, 7, collection.dtype))
    assert collection.missing(row_ids) == []
    with pytest.raises(BackboneError, match="a stored bottleneck at top"):
        pipeline.extract()
    assert pipeline.num_passed() == 0  # the rows were there, so that it only compared them
    assert collection.missing(row_ids) == row_ids
    outcome = pipeline.extract()
    assert (outcome.status, outcome.rows_computed) == ("miss", NUM_IMAGES)
    assert pipeline.num_passed() == NUM_IMAGES
    assert not (collection.select(row_ids).gather(range(NUM_IMAGES)) == 7).all(axis=1).any()


def test_a_backbone_whose_graph_disagrees_with_its_layers_keeps_no_rows(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headstart.tasks.bottlenecks import making

    original = making.freeze
    with monkeypatch.context() as patch:
        patch.setattr(
            making,
            "freeze",
            lambda *arguments: lambda pixels: [1.05 * a for a in original(*arguments)(pixels)],
        )
        with pytest.raises(BackboneError, match="a stored bottleneck at top"):
            pipeline.extract()
    row_ids = plain_rows(pipeline.index().digests)
    assert pipeline.collections()[0].missing(row_ids) == row_ids
    assert pipeline.extract().rows_computed == NUM_IMAGES


def test_a_few_wrong_rows_among_many_are_found_and_their_shard_alone_is_discarded(
    finished: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headstart.tasks.bottlenecks import making

    original = making.freeze
    before = plain_rows(finished.index().digests)
    add_images(finished.images, "red", [1000, 1001])
    with monkeypatch.context() as patch:
        patch.setattr(
            making,
            "freeze",
            lambda *arguments: lambda pixels: [1.5 * a for a in original(*arguments)(pixels)],
        )
        with pytest.raises(BackboneError, match="a stored bottleneck at top"):
            finished.extract()
    row_ids = plain_rows(finished.index().digests)
    assert len(row_ids) == NUM_IMAGES + 2
    assert finished.collections()[0].missing(row_ids) == sorted(set(row_ids) - set(before))
    assert finished.extract().rows_computed == 2
