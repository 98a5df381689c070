"""Batches that are moved on by a row instead of by a batch."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from headstart.debug.callsites import CallSite
from headstart.debug.diagnosis import Diagnosis
from headstart.debug.running.ladder import linked
from headstart.debug.symptoms.batches import Batches, by_outcome, fed_to_fit
from headstart.debug.symptoms.overlaps import line_of_batches, line_of_slice

SIZE = 16
RNG = np.random.default_rng(0)
X = RNG.normal(size=(400, 5)).astype("float32")
Y = np.zeros(400)


class Rows(keras.utils.PyDataset):
    def __init__(self):
        super().__init__()
        self.rows = X

    def __len__(self):
        return len(self.rows) // SIZE

    def __getitem__(self, index):
        return self.rows[index : index + SIZE], Y[index : index + SIZE]  # WRONG


def endless():
    i = 0
    while True:
        yield X[i : i + SIZE], Y[i : i + SIZE]  # WRONG
        i = (i + 1) % 25


WRONG = [
    number
    for number, line in enumerate(Path(__file__).read_text().splitlines(), start=1)
    if line.endswith("# WRONG")
]


def fed(batches):
    seen = Batches()
    for x in batches:
        seen.on_step(tf.constant(x), Y[: len(x)])
    return seen


def found_in(batches):
    return [one.symptom for one in fed(batches).diagnoses()]


def slices(starts):
    return [X[start : start + SIZE] for start in starts]


@pytest.mark.parametrize(
    "starts",
    [
        np.arange(25),
        np.tile(np.arange(25), 3),
        RNG.permutation(25),
        np.concatenate([RNG.permutation(25) for _ in range(4)]),
    ],
)
def test_batches_that_move_on_by_a_row_are_found(starts):
    assert found_in(slices(starts)) == ["overlapping-batches"]


def in_turn(num_rows, num_batches):
    return [X[np.arange(i * SIZE, (i + 1) * SIZE) % num_rows] for i in range(num_batches)]


@pytest.mark.parametrize(
    "batches",
    [
        slices(np.arange(25) * SIZE),
        slices(np.tile(np.arange(25) * SIZE, 3)),
        slices(np.arange(40) * SIZE // 2),  # half of each batch again, by intention
        in_turn(40, 30),  # repeated before it is batched, so that batches do not come out even
        in_turn(101, 200),
        [X[RNG.permutation(60)[:SIZE]] for _ in range(60)],  # drawn with replacement
        slices(RNG.integers(0, 384, size=60)),  # a window at random
        slices([0] * 40),
        [RNG.integers(0, 2, (SIZE, 2)) for _ in range(40)],
        [np.ones((SIZE, 3)) for _ in range(40)],
    ],
)
def test_batches_that_share_rows_in_other_ways_are_passed_over(batches):
    assert "overlapping-batches" not in found_in(batches)


def test_it_is_told_where_the_batch_is_taken_from_the_rows():
    rows = Rows()
    seen = fed(rows[index][0] for index in RNG.permutation(25))
    (found,) = fed_to_fit(seen, {"x": rows})
    assert (found.symptom, found.line) == ("overlapping-batches", WRONG[0])
    assert "40 different rows of 400" in found.cause
    assert line_of_batches(endless()) == CallSite(__file__, WRONG[1])
    assert line_of_batches(X) is None
    assert line_of_slice(CallSite(__file__, WRONG[1] + 1)) == CallSite(__file__, WRONG[1])


def test_where_much_was_learnt_only_data_that_are_left_out_are_told():
    seen = fed(slices(np.arange(25)))
    found = seen.diagnoses()
    assert by_outcome(found, "little") == found
    assert by_outcome(found, "well") == []
    seen.overlaps.note_rows_at_hand(len(X))
    assert len(by_outcome(seen.diagnoses(), "well")) == 1


def test_labels_of_one_class_follow_from_it():
    one_class = Diagnosis(symptom="one-class-only", cause="", confidence=0.99)
    (overlap,) = fed(slices(np.arange(25))).diagnoses()
    assert [one.caused_by for one in linked([one_class, overlap])] == ["overlapping-batches", None]


@pytest.mark.parametrize("is_apart", [True, False])
def test_rows_that_come_again_with_other_labels_are_shuffled_apart(is_apart):
    rng = np.random.default_rng(0)
    x, y, fed = rng.normal(size=(80, 3)), np.arange(80) % 4, Batches()
    for _ in range(3):
        order = rng.permutation(80)
        x, y = x[order], y if is_apart else y[order]
        for start in range(0, 80, 16):
            fed.on_step(x[start : start + 16], y[start : start + 16])
    found = [one.symptom for one in fed_to_fit(fed, {}) if one.symptom == "shuffled-apart"]
    assert found == ["shuffled-apart"] * is_apart


def test_pairs_and_words_with_many_neighbours_are_not_shuffled_apart():
    rng = np.random.default_rng(0)
    one, other, words = rng.normal(size=(20, 3)), rng.normal(size=(400, 3)), np.arange(400) % 20
    rng.shuffle(words)
    pairs, context = Batches(), Batches()
    for start in range(0, 400, 16):
        part = slice(start, start + 16)
        pairs.on_step([one[words[part]], other[part]], rng.integers(0, 2, 16))
        context.on_step(one[words[part]], rng.integers(0, 9, len(words[part])))
    for fed, x in ((pairs, [one[words], other]), (context, one[words])):
        assert "shuffled-apart" not in [found.symptom for found in fed_to_fit(fed, {"x": x})]
