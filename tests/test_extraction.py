"""One pass of a frozen backbone: what it writes, what it refuses, what an interrupt leaves."""

import contextlib
import io
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from rich.console import Console

from headstart.errors import BackboneError
from headstart.tasks.backbones.backbone import Backbone
from headstart.tasks.backbones.preprocessing import Preprocessing
from headstart.tasks.bottlenecks import making
from headstart.tasks.bottlenecks.extraction import BATCHES_AHEAD, Target, Waiting, freeze, run_pass
from headstart.tasks.progress import Advance, Reporter, use_reporter
from headstart.tasks.running.tensorflow import full_float32
from headstart.tasks.store.artifacts import Store
from headstart.tasks.store.fingerprint import bytes_digest
from headstart.tasks.store.records import RowCollection, RowId, RowReader
from tests.pipeline import SIDE, Pipeline, tiny_network

NUM_ROWS = 40
BATCH_SIZE = 4
ROWS = sorted(RowId(bytes_digest(bytes([number])), 0) for number in range(NUM_ROWS))
Activations = dict[RowId, npt.NDArray[Any]]


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return Backbone("tiny", SIDE, Preprocessing("none"), tiny_network())


@pytest.fixture
def views(store: Store) -> RowCollection:
    """Return random pixels, but for the first one of each row, which is the row's number."""
    collection = RowCollection(store, "views", "random", (SIDE, SIDE, 3), "uint8")
    pixels = np.random.default_rng(0).integers(0, 256, (NUM_ROWS, SIDE, SIDE, 3), np.uint8)
    with collection.lock(), collection.writer(NUM_ROWS) as writer:
        for number, row_id in enumerate(ROWS):
            pixels[number, 0, 0, 0] = number
            writer.write(row_id, pixels[number])
    return collection


def numbers(store: Store, name: str = "numbers", dtype: str = "float32") -> RowCollection:
    return RowCollection(store, "bottlenecks", name, (1,), dtype)


def extract_numbers(pixels: Any) -> list[Any]:
    """Stand in for a backbone with one cut: the number in the first pixel."""
    return [tf.cast(pixels[:, 0, 0, :1], tf.float32)]


def contents(collection: RowCollection) -> Activations:
    rows = [row_id for shard in collection.shards() for row_id in shard.row_ids]
    assert len(rows) == len(set(rows))
    return dict(zip(rows, collection.select(rows).gather(range(len(rows))), strict=True))


def source(
    views: RowCollection, *targets: Target, rows: Sequence[RowId] = ROWS
) -> list[tuple[RowReader, Sequence[Target]]]:
    return [(views.select(rows), targets)]


def all_of(collection: RowCollection, output: int = 0) -> Target:
    return Target(output, collection, frozenset(ROWS), NUM_ROWS)


def test_rows_hold_what_the_keras_model_computes(
    store: Store, views: RowCollection, backbone: Backbone
) -> None:
    cuts = ["second", "top"]
    shapes = [backbone.resolve_cut(name).activation_shape for name in cuts]
    kept = [
        RowCollection(store, "bottlenecks", name, shape, "float32")
        for name, shape in zip(cuts, shapes, strict=True)
    ]
    targets = [all_of(collection, output) for output, collection in enumerate(kept)]
    assert run_pass(freeze(backbone, cuts), source(views, *targets), BATCH_SIZE) == NUM_ROWS
    pixels = views.select(ROWS).gather(range(NUM_ROWS))
    live = backbone.extractor(cuts)(tf.constant(pixels), training=False)
    for collection, expected in zip(kept, live, strict=True):
        found = collection.select(ROWS).gather(range(NUM_ROWS))
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)
        assert contents(collection).keys() == set(ROWS)


def test_a_pass_writes_for_each_cut_what_that_cut_lacks(store: Store, views: RowCollection) -> None:
    def extract(pixels: Any) -> list[Any]:
        (number,) = extract_numbers(pixels)
        return [number, -number]

    plus, minus = numbers(store, "plus"), numbers(store, "minus")
    targets = [
        Target(0, plus, frozenset(ROWS[:10]), NUM_ROWS),
        Target(1, minus, frozenset(ROWS[5:12]), NUM_ROWS),
    ]
    assert run_pass(extract, source(views, *targets, rows=ROWS[:12]), 5) == 12
    assert contents(plus) == {row_id: [number] for number, row_id in enumerate(ROWS[:10])}
    assert contents(minus) == {ROWS[number]: [-number] for number in range(5, 12)}


def test_each_source_fills_its_own_targets(store: Store, views: RowCollection) -> None:
    first, second = numbers(store, "first"), numbers(store, "second")
    sources = [
        (views.select(ROWS[:7]), [Target(0, first, frozenset(ROWS[:7]), NUM_ROWS)]),
        (views.select(ROWS[7:]), [Target(0, second, frozenset(ROWS[7:]), NUM_ROWS)]),
    ]
    sizes: list[int] = []

    def extract(pixels: Any) -> list[Any]:
        sizes.append(len(pixels))
        return extract_numbers(pixels)

    assert run_pass(extract, sources, BATCH_SIZE) == NUM_ROWS
    assert sizes == [4, 3, *[4] * 8, 1]  # no batch mixes two sources
    assert contents(first) == {row_id: [number] for number, row_id in enumerate(ROWS[:7])}
    assert contents(second) == {ROWS[number]: [number] for number in range(7, NUM_ROWS)}


def test_shards_do_not_depend_on_the_batch_size(
    store: Store, views: RowCollection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headstart.tasks.store.records.MIN_SHARD_ROWS", 10)
    shards = []
    for batch_size in (1, 7, NUM_ROWS + 1):
        collection = numbers(store, f"by {batch_size}")
        run_pass(extract_numbers, source(views, all_of(collection)), batch_size)
        shards.append([(shard.row_ids, shard.entry.sha256) for shard in collection.shards()])
    assert len(shards[0]) == 4
    assert shards[0] == shards[1] == shards[2]


@pytest.mark.parametrize("sign", [1, -1])
def test_a_value_too_large_for_float16_names_the_image_and_the_way_out(
    store: Store, views: RowCollection, sign: int
) -> None:
    def extract(pixels: Any) -> list[Any]:
        (number,) = extract_numbers(pixels)
        return [tf.where(number == 13, sign * 70_000.0, number)]

    collection = numbers(store, dtype="float16")
    with pytest.raises(BackboneError) as caught:
        run_pass(extract, source(views, all_of(collection)), BATCH_SIZE)
    assert caught.value.received == f"70,000 for image {ROWS[13].image_digest}"
    assert "65,504" in caught.value.problem
    assert caught.value.next_step is not None
    assert "bottlenecks.dtype=float32" in caught.value.next_step
    assert ROWS[13] not in contents(collection)


def test_a_value_too_large_for_float16_fits_into_float32(
    store: Store, views: RowCollection
) -> None:
    collection = numbers(store)
    run_pass(
        lambda pixels: [extract_numbers(pixels)[0] * 1e6], source(views, all_of(collection)), 9
    )
    assert contents(collection)[ROWS[13]] == [13e6]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_an_activation_that_is_no_number_names_the_image(
    store: Store, views: RowCollection, value: float, dtype: str
) -> None:
    def extract(pixels: Any) -> list[Any]:
        (number,) = extract_numbers(pixels)
        return [tf.where(number == 13, value, number)]

    collection = numbers(store, dtype=dtype)
    with pytest.raises(BackboneError) as caught:
        run_pass(extract, source(views, all_of(collection)), BATCH_SIZE)
    assert caught.value.received == f"NaN or Inf for image {ROWS[13].image_digest}"
    assert ROWS[13] not in contents(collection)


PLACES = ("computing", "writing")


class _Broken:
    """An activation that fails when it is fetched, as on a device that computes behind."""

    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def __array__(self, *_: Any, **__: Any) -> npt.NDArray[np.float32]:
        raise self.error


@pytest.mark.parametrize(
    ("error", "where"),
    [
        *((error, where) for error in (KeyboardInterrupt, RuntimeError) for where in PLACES),
        (MemoryError, "writing"),
    ],
)
def test_a_pass_that_breaks_off_keeps_whole_rows_and_the_next_does_the_rest(
    store: Store, views: RowCollection, error: type[BaseException], where: str
) -> None:
    batches: list[list[RowId]] = []

    def extract(pixels: Any) -> list[Any]:
        batches.append([ROWS[int(number)] for number in pixels[:, 0, 0, 0]])
        if len(batches) != 4:
            return extract_numbers(pixels)
        if where == "computing":
            raise error
        return [_Broken(error)]

    collection = numbers(store)
    with pytest.raises(error), collection.lock():
        run_pass(extract, source(views, all_of(collection)), BATCH_SIZE)
    assert len(batches) <= 4 + BATCHES_AHEAD  # of 10: it did not run to the end first
    expected = {row_id: [number] for number, row_id in enumerate(ROWS)}
    kept = contents(collection)
    assert kept.keys() == {
        row_id for batch in batches if batch is not batches[3] for row_id in batch
    }
    assert kept == {row_id: expected[row_id] for row_id in kept}
    assert not list((store.root / "tmp").iterdir())

    rest = collection.missing(ROWS)
    assert len(rest) == NUM_ROWS - len(kept)
    target = Target(0, collection, frozenset(rest), NUM_ROWS)
    assert run_pass(extract_numbers, source(views, target, rows=rest), BATCH_SIZE) == len(rest)
    assert contents(collection) == expected


def test_a_pass_whose_views_cannot_be_read_keeps_what_came_before(
    store: Store, views: RowCollection
) -> None:
    reader = views.select(ROWS)
    gather = reader.gather

    def break_off(positions: Any) -> Any:
        if 12 in positions:
            raise OSError("the disk is gone")
        return gather(positions)

    reader.gather = break_off  # type: ignore[method-assign]
    collection = numbers(store)
    with pytest.raises(OSError, match="the disk is gone"):
        run_pass(extract_numbers, [(reader, [all_of(collection)])], BATCH_SIZE)
    assert contents(collection).keys() == set(ROWS[:12])


class _Ledger(Reporter):
    """Keeps what it is told of progress."""

    def __init__(self) -> None:
        super().__init__(Console(file=io.StringIO()))
        self.tracked: list[tuple[str, int, str]] = []
        self.counts: list[int] = []

    @contextlib.contextmanager
    def track(
        self, title: str, total: int, unit: str, tell: Callable[[], str] = str
    ) -> Iterator[Advance]:
        self.tracked.append((title, total, unit))
        yield self.counts.append
        self.words = tell()


def test_progress_reaches_the_number_of_views(store: Store, views: RowCollection) -> None:
    targets = [all_of(numbers(store)), all_of(numbers(store, "once more"))]
    ledger = _Ledger()
    with use_reporter(ledger):
        run_pass(extract_numbers, source(views, *targets), 9)
    assert ledger.tracked == [("bottlenecks", NUM_ROWS, "images")]
    assert ledger.counts == [9, 9, 9, 9, 4]
    assert re.fullmatch(r", the engine waited \d+%", ledger.words)


def test_the_share_that_the_engine_waited_is_told() -> None:
    now = [0.0]
    waiting = Waiting(lambda: now[0])
    with waiting():
        now[0] += 1.0
    now[0] += 3.0
    assert waiting.words() == ", the engine waited 25%"


class SmallMemory:
    """Stand in for a device with room for so many images at once."""

    def __init__(self, room: int, error: Exception) -> None:
        self.room, self.error = room, error
        self.sizes: list[int] = []

    def __call__(self, pixels: Any) -> list[Any]:
        self.sizes.append(len(pixels))
        if len(pixels) > self.room:
            raise self.error
        return extract_numbers(pixels)


OUT_OF_MEMORY = [
    tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor"),
    MemoryError(),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_a_batch_too_large_for_the_memory_is_computed_in_parts(
    store: Store, views: RowCollection, error: Exception
) -> None:
    kept, memory, told = numbers(store), SmallMemory(3, error), io.StringIO()
    with use_reporter(Reporter(Console(file=told, width=200))):
        run_pass(memory, source(views, all_of(kept)), 16)
    assert {int(value[0]) for value in contents(kept).values()} == set(range(NUM_ROWS))
    # Found out once, and kept to.
    assert [size for size in memory.sizes if size > 3] == [16, 8, 4]
    assert "continues with 2 images at a time" in told.getvalue()


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_too_little_memory_for_one_image_is_a_clear_error(
    store: Store, views: RowCollection, error: Exception
) -> None:
    kept = numbers(store)
    with pytest.raises(BackboneError, match="too little memory to send one image"):
        run_pass(SmallMemory(0, error), source(views, all_of(kept)), 16)
    assert contents(kept) == {}


def test_what_is_kept_as_float32_is_computed_in_it(pipeline: Pipeline) -> None:
    config = tf.config.experimental
    seen = []

    def look(*_: object) -> None:
        seen.append(config.tensor_float_32_execution_enabled())

    assert config.tensor_float_32_execution_enabled()  # as TensorFlow has it
    with pytest.MonkeyPatch.context() as patch:
        real = making.run_pass
        patch.setattr(making, "run_pass", lambda *given: (look(), real(*given)))
        pipeline.extract()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(full_float32()(look), range(20)))
    assert seen == [False] * 21
    assert config.tensor_float_32_execution_enabled()
