"""The programs of this folder, as ``pytest -m proof`` runs them; tests/README.md has figures.

HEADSTART_PROOF_SHARE=0.1 does a tenth of everything.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.proof, pytest.mark.timeout(6 * 3600)]
ROOT = Path(__file__).parents[2]
FUZZED = {
    "image": 2000,
    "csv": 500,
    "list": 500,
    "parquet": 500,
    "yaml": 1000,
    "keras": 300,
    "tfrecord": 1000,
    "bundle": 500,
}
"""Changed files of each kind."""
SHARE = float(os.environ.get("HEADSTART_PROOF_SHARE", "1"))
SEED = os.environ.get("HEADSTART_PROOF_SEED", "1")


def prove(program: str, *arguments: str) -> None:
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-m", f"tests.proof.{program}", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]


def some(count: int) -> str:
    return str(max(2, round(SHARE * count)))


@pytest.mark.parametrize("flow", ["train", "finetune", "scratch", "rank", "gc", "promote"])
def test_what_is_killed_goes_on_to_the_same_bits(flow: str) -> None:
    prove("kills", flow, some(50), SEED)


def test_a_flipped_bit_is_noticed_before_use() -> None:
    prove("flips", some(2000), SEED)


@pytest.mark.parametrize("kind", FUZZED)
def test_changed_files_are_read_or_refused(kind: str) -> None:
    prove("fuzz", kind, some(FUZZED[kind]), SEED)


def test_runs_at_once_make_what_one_makes() -> None:
    prove("many", "runs", "8")


def test_memory_grows_little_with_the_images() -> None:
    prove("many", "images", some(100_000))
