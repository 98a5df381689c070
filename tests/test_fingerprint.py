import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.config import HeadConfig
from headstart.tasks.store.fingerprint import (
    canonical_json,
    changed_fields,
    digest,
    file_digest,
    gather,
)

LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
)
VALUES = st.recursive(
    LEAVES | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


def test_a_known_value_keeps_its_digest_for_ever() -> None:
    # A change here starts every user's cache cold: bump STORE_LAYOUT if it must be.
    value = {"b": [1, 2.5, None], "a": {"é": True}}
    assert canonical_json(value) == '{"a":{"\\u00e9":true},"b":[1,2.5,null]}'
    assert digest(value) == "76199a22080b039a5007ccf197e5cece75be45f1a2ed47707d40b99e1f78370d"


@settings(max_examples=25)  # each builds a nested value, which is slow
@given(st.dictionaries(st.text(), VALUES))
def test_the_order_of_names_does_not_matter(value: dict[str, Any]) -> None:
    assert digest(value) == digest(dict(reversed(value.items())))


def test_tuples_and_lists_are_one_value_because_json_cannot_tell_them_apart() -> None:
    assert digest((1, (2, 3))) == digest([1, [2, 3]])


@pytest.mark.parametrize("value", [True, 1, 1.0, "1", [1], {"1": 1}, None])
def test_values_of_different_kinds_differ(value: Any) -> None:
    others = [True, 1, 1.0, "1", [1], {"1": 1}, None]
    same = [other for other in others if digest(other) == digest(value)]
    assert [type(other) for other in same] == [type(value)]


@pytest.mark.parametrize("value", [object(), {1: 2}, {1, 2}, b"bytes", [Path("x")]])
def test_what_has_no_canonical_form_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="Received"):
        digest(value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        digest({"x": value})


def test_a_config_is_hashed_by_its_fields() -> None:
    assert digest(HeadConfig()) == digest(HeadConfig().model_dump(mode="json"))
    assert digest(HeadConfig()) != digest(HeadConfig(seed=1))


def test_a_file_is_hashed_by_its_bytes(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(b"abc")
    assert file_digest(file) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_mapping_that_is_new_as_a_whole_takes_one_line_and_the_last() -> None:
    old = {"rows": {"augmented": None, "num_augmented": 0}, "seed": 0}
    view = {"codecs": "a", "recipe": {"seed": 1, "resize": "pad"}}
    new = {"rows": {"augmented": view, "num_augmented": 2}, "seed": 1}
    told = gather(changed_fields(old, new))
    one_line = ("rows.augmented", None, "3 fields")
    assert told == [("rows.num_augmented", 0, 2), ("seed", 0, 1), one_line]
    assert gather(changed_fields(new, old))[-1] == ("rows.augmented", "3 fields", None)
    two = [("head.kind", "linear", "mlp"), ("head.units", None, [8])]
    assert gather(two) == two


def test_changed_fields_are_named_with_old_and_new_value() -> None:
    old = {"head": {"kind": "linear", "seed": 0}, "gone": 1}
    new = {"head": {"kind": "mlp", "seed": 0}, "units": [1]}
    assert changed_fields(old, new) == [
        ("gone", 1, None),
        ("head.kind", "linear", "mlp"),
        ("units", None, [1]),
    ]
