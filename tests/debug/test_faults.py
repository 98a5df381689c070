"""Every program of tests/debug/faults, run under the debugger as ``headstart debug run`` does."""

import sys
from pathlib import Path

import pytest

from headstart.debug.rendering import render_text

sys.path.insert(0, str(Path(__file__).parent))
from fault_programs import BUGGY, Declared, Zygotes
from fault_programs import HEALTHY as OWN_HEALTHY

CORPUS = Path(__file__).parents[2] / "benchmarks" / "healthy_programs"
SAMPLE = ("hinge_tanh_svm", "fraud_no_weights_prior_bias", "dropout_half_heavy_l2")
"""A few of the corpus that `benchmarks/debug_false_alarms.py` runs as a whole."""
HEALTHY = [*OWN_HEALTHY, *(CORPUS / f"{name}.py" for name in SAMPLE)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Run all programs beside the tests: each waits for its own, and has its own time limit."""
    zygotes = Zygotes()
    try:
        with zygotes.running([*BUGGY, *HEALTHY], tmp_path_factory.mktemp("faults")) as futures:
            yield futures
    finally:
        zygotes.close()


@pytest.mark.parametrize("program", BUGGY, ids=lambda path: path.stem)
def test_the_first_diagnosis_names_the_line_or_the_cause(runs, program):
    result = runs[program].result()
    assert result.exit_code == 1, result.message
    assert Declared.of(program).fits(result.diagnoses[0], program), render_text(result.diagnoses)


@pytest.mark.parametrize("program", HEALTHY, ids=lambda path: path.stem)
def test_a_healthy_program_is_called_healthy(runs, program):
    result = runs[program].result()
    assert result.exit_code == 0, result.message or render_text(result.diagnoses)


def test_only_numerical_faults_whose_steps_do_not_tell_are_run_twice(runs):
    instrumented = {path.stem for path, run in runs.items() if "dump" in run.result().stages}
    again = {path.stem for path, run in runs.items() if "retake" in run.result().stages}
    assert "nan_in_map" in instrumented
    assert {"log_of_zero_layer", "backward_square_root"} <= again - instrumented
    assert instrumented.isdisjoint(path.stem for path in HEALTHY)
    assert "label_out_of_range" not in instrumented
