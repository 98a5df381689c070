"""What the tests of the debugger share."""

import sys

import pytest


@pytest.fixture(autouse=True)
def _time_for_experiments():
    """Each test is a program of its own: it has the whole time for experiments."""
    module = sys.modules.get("headstart.debug.preflight.experiments")
    if module is not None:
        module.PROGRAM.left_s = module.LIMIT_S
