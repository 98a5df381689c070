"""The wheel, built and used in an environment that has no checkout."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.pipeline import write_images

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the Python of a new environment that has the wheel, and our dependencies."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    files = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split("\0")
    for name in filter(None, files):
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, source],
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel], check=True
    )
    # The dependencies of this environment, behind the new one's own packages. An editable
    # installation of headstart in there must not come along, so its finder is left out.
    here = sysconfig.get_path("purelib")
    there = next((folder / "venv" / "lib").glob("python*/site-packages"))
    (there / "dependencies.pth").write_text(f"import sys; sys.path.append({here!r})\n")
    return python


def run(python: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [python.with_name("headstart"), *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_installed_package_is_the_wheels(python: Path, tmp_path: Path) -> None:
    code = "import headstart, headstart.flows, headstart.tasks, headstart.debug as d; print(d)"
    result = subprocess.run(
        [python, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert str(python.parent.parent) in result.stdout


def test_a_checkout_that_hides_the_installed_package_is_whole(python: Path) -> None:
    # As `prefect deploy` and flow runs find it, which put the working folder first on the path.
    checkout = python.parent.parent.parent / "source"
    code = (
        "import headstart.flows, headstart.debug, headstart.tasks.store.records as r\n"
        "print(r.__file__)\n"
        "from headstart.service.provisioning import deployment_names; print(deployment_names())"
    )
    result = subprocess.run(
        [python, "-c", code], cwd=checkout, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(str(checkout / "tasks" / "store" / "records.py"))
    assert "transfer/transfer" in result.stdout


def test_an_editable_installation_works_from_the_clones_parent_folder(
    python: Path, tmp_path: Path
) -> None:
    # There the clone's folder is a package of the name headstart, without a module in it.
    clone = tmp_path / "headstart"
    clone.symlink_to(python.parent.parent.parent / "source", target_is_directory=True)
    build = f"import setuptools.build_meta as b; b.build_editable({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=clone, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (pth,) = [name for name in archive.namelist() if name.endswith(".pth")]
        on_path = archive.read(pth).decode().strip()
    code = (
        f"import sys; sys.path = [p for p in sys.path if p != {on_path!r}] + [{on_path!r}]\n"
        "import headstart.flows, headstart.tasks, headstart.debug, headstart\n"
        "print(headstart.__version__)"
    )
    result = subprocess.run(
        [python, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == "0.1.0\n"


def test_a_model_is_trained_and_used_from_the_wheel(python: Path, tmp_path: Path) -> None:
    images = write_images(tmp_path / "images")
    arguments = ["train", str(images), "--set", "views.image_size=32", "--json"]
    result = run(python, *arguments, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    summary = json.loads(result.stdout)
    assert {stage["status"] for stage in summary["stages"]} == {"miss"}
    assert "<html" in Path(summary["report"]).read_text(encoding="utf-8")
    (image, *_) = sorted((images / "red").glob("*.png"))
    again = run(python, "predict", summary["run_dir"], str(image), "--json", cwd=tmp_path)
    assert json.loads(again.stdout)["label"] == "red"
