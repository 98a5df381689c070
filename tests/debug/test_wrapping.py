"""Small integers that wrap around."""

import numpy as np
import pytest

from headstart.debug.preflight.wrapping import wrapped_integers

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 6, 6)).astype("uint8")


def test_a_contrast_that_wraps_is_found_at_its_line():
    picture = PIXELS.copy()
    factor = 3
    stretched = (picture - 128) * factor  # noqa: F841
    (found,) = wrapped_integers()
    assert found.symptom == "integer-overflow"
    assert found.file == __file__
    assert "(picture - 128) * factor" in found.cause
    assert "holds 0 to 255" in found.cause


def test_a_cast_that_wraps_is_found():
    prices = np.linspace(10.0, 900.0, 40)
    labels = prices.astype("uint8")  # noqa: F841
    (found,) = wrapped_integers()
    assert "prices.astype('uint8')" in found.cause


@pytest.mark.parametrize("case", ["fits", "float", "changed", "other", "wide", "hash", "cut"])
def test_what_holds_is_not_accused(case):
    picture = PIXELS.copy()
    if case == "fits":
        half = (picture - 0) * 1  # noqa: F841
    elif case == "float":
        scaled = (picture.astype("float32") - 128) * 3  # noqa: F841
    elif case == "changed":  # afterwards, so that the line says nothing of what is there
        stretched = picture + 1
        stretched[:] = 7
    elif case == "other":
        mixed = picture[::-1] * 2  # noqa: F841
    elif case == "hash":
        hashed = picture.astype("uint16") * 31_000  # noqa: F841
    elif case == "cut":  # other rows than it was computed from
        cut = np.tile(picture, (60, 1, 1)) + 1
        cut = cut[:40]
    else:
        wide = picture.astype("int64") * 300  # noqa: F841
    assert wrapped_integers() == []
