"""JSON with its own checksum: no flipped bit goes unnoticed, wherever it is."""

import json

import pytest

from headstart.tasks.store.sealing import SEAL, seal, sealed_text, unseal

FIELDS = {"accuracy": 0.927, "name": "é", "none": float("nan"), "list": [1, {"x": None}]}


def test_what_was_sealed_comes_back_and_older_data_is_taken_as_it_is() -> None:
    assert unseal(json.loads(sealed_text({"a": 1}))) == {"a": 1}
    assert unseal({"a": 1}) == {"a": 1}
    splits = {"val": 1, "test": {"b": 2, "a": 3}}
    assert json.dumps(unseal(json.loads(sealed_text(splits)))) == json.dumps(splits)
    assert unseal(seal(seal({"a": 1}))) == {"a": 1}


def test_every_flipped_bit_is_noticed_in_the_checksums_name_too() -> None:
    data = sealed_text(FIELDS).encode()
    sound = json.dumps(unseal(json.loads(data)))
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            found = json.dumps(unseal(json.loads(flipped)))
        except ValueError:  # no JSON, no UTF-8, or another checksum
            continue
        assert found == sound, (bit, flipped)  # a blank that became another


def test_a_checksum_of_another_name_is_damage() -> None:
    fields = seal({"a": 1})
    fields["checksul"] = fields.pop(SEAL)
    with pytest.raises(ValueError, match="checksul"):
        unseal(fields)
