"""How a wrong configuration is told: every wrong field at once, in a user's words."""

import pytest

from headstart.config import load_config
from headstart.errors import ConfigError


def wrong(*settings: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config("photos", settings=settings)
    return [line.strip() for line in caught.value.received.splitlines() if line]


def test_all_wrong_fields_are_told_at_once() -> None:
    assert wrong("head.kind=mpl", "head.epochs=0", "head.speed=1") == [
        "head.kind: should be 'linear', 'mlp' or 'tail' (received mpl)",
        "head.epochs: should be greater than or equal to 1 (received 0)",
        "head.speed: there is no such field",
    ]


def test_a_value_is_shown_as_it_would_be_written() -> None:
    (line,) = wrong("dataset.val_fraction=0.9", "dataset.test_fraction=0.5")
    assert line.startswith("dataset: val_fraction + test_fraction must leave images to train on")
    assert line.endswith("(received {images: photos, test_fraction: 0.5, val_fraction: 0.9})")
    (line,) = wrong("head.hidden_units=[4, many]")
    assert "received many" in line
    (line,) = wrong("head.epochs=" + "9" * 50 + "x" * 200)
    assert len(line) < 250
