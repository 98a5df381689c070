"""The table of epochs on the terminal."""

import pytest

from headstart.tasks.head.epochs import EpochFigures, fitted, header


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_table_of_epochs_fits_the_terminal(width: int) -> None:
    figures = EpochFigures(999, 12.3456, 0.5, 1.2345, 0.75, 0.01, 1234.5, 123_456.0)
    shown = [fitted(header("accuracy"), width), fitted(figures.line(), width)]
    assert {len(line) for line in shown} == {len(shown[0])}
    assert len(shown[0]) <= width
    assert "val accuracy" in shown[0]
    assert ("images/s" in shown[0]) == (width >= 70)
    assert ("123,456" in shown[1]) == (width >= 70)
