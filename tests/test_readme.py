"""The README's commands, kept true."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.main import get_command
from typer.testing import CliRunner

from headstart.cli import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def shell_lines() -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line]


def headstart_lines() -> list[str]:
    return [line for line in shell_lines() if line.startswith("headstart ")]


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder "images" in the working folder: two classes, told apart by brightness."""
    generator = np.random.default_rng(0)
    for label, level in (("dark", 60), ("light", 190)):
        folder = tmp_path / "images" / label
        folder.mkdir(parents=True)
        for number in range(16):
            pixels = generator.integers(level - 40, level + 40, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "images"


def test_ci_runs_the_two_commands_of_the_readme() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    patterns = re.findall(r"^run_line '(.*)'$", script, flags=re.MULTILINE)
    install, test = (
        next(line for line in shell_lines() if re.search(pattern, line)) for pattern in patterns
    )
    assert [install, test] == shell_lines()[:2]


@pytest.mark.usefixtures("images")
def test_the_commands_for_ones_own_images_run() -> None:
    lines = [line for line in headstart_lines() if line.startswith("headstart train")]
    concepts = (ROOT / "docs" / "concepts.md").read_text(encoding="utf-8").splitlines()
    lines += [line for line in concepts if line.startswith("headstart train")]
    assert len(lines) == 3
    for line in lines:
        # Pretrained weights of ResNet50 would be downloaded; a small view keeps it quick.
        extra = ["--set", "views.image_size=32", "--epochs", "1"]
        extra += ["--set", "export.formats=[keras]", "--set", "export.num_proof_images=2"]
        if "resnet50" in line:
            extra += ["--set", "backbone.weights=random"]
        result = CliRunner().invoke(app, [*shlex.split(line)[1:], *extra])
        assert result.exit_code == 0, (line, result.output, result.exception)


def test_every_command_that_is_mentioned_exists() -> None:
    mentioned = set(re.findall(r"`headstart ([a-z]+)", README))
    assert mentioned >= {"train", "plan", "why", "predict", "evaluate", "cuts", "cache", "demo"}
    assert mentioned <= get_command(app).commands.keys()


def test_every_option_that_is_mentioned_exists() -> None:
    options = set(re.findall(r"`(--[a-z-]+)", README))
    known = {
        option
        for command in get_command(app).commands.values()
        for parameter in command.params
        for option in parameter.opts
    }
    assert options
    assert options <= known
