"""The Dockerfile: linted, and made of commands that are run elsewhere too."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from headstart import __version__

ROOT = Path(__file__).parent.parent
DOCKERFILE = ROOT / "Dockerfile"


def instructions() -> list[str]:
    lines = re.sub(r"\\\n\s*", "", DOCKERFILE.read_text(encoding="utf-8")).splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_the_dockerfile_passes_the_linter() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    result = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True)
    assert (result.stdout, result.stderr, result.returncode) == ("", "", 0)


def test_it_installs_as_the_readme_and_so_ci_does() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    install = next(line for line in readme.splitlines() if line.startswith("python3 -m venv"))
    venv, pip, _ = install.split(" && ")
    (run,) = (line for line in instructions() if "pip install" in line)
    assert venv.replace(".venv", "/opt/headstart") in run
    program, _, arguments = pip.partition(" install ")
    assert program.replace(".venv", "/opt/headstart") in run
    assert f'"{arguments}${{EXTRAS}}"' in run


def test_the_image_runs_the_command_line_without_root_over_a_volume() -> None:
    lines = instructions()
    assert 'CMD ["headstart", "--help"]' in lines
    assert "VOLUME /store" in lines
    assert any("HEADSTART_STORE=/store" in line for line in lines)
    user = [line for line in lines if line.startswith("USER")]
    assert user == ["USER 1000"]


def test_the_gpu_build_argument_names_an_extra() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == __version__
    (extra,) = re.findall(r"EXTRAS='\[(\w+)\]'", DOCKERFILE.read_text())
    assert extra in project["optional-dependencies"]


def yaml_of(page: str) -> list[Any]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [yaml.safe_load(block) for block in blocks]


def test_the_manifests_of_the_documentation_are_kubernetes_own() -> None:
    *_, fragment = yaml_of("production.md")  # added to what Prefect has in its template
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "run"}, **fragment}
    job["spec"]["template"]["spec"]["restartPolicy"] = "Never"
    (cluster,) = (one for one in yaml_of("many-machines.md") if one.get("kind") == "DaskCluster")
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "worker"}}
    pod["spec"] = cluster["spec"]["worker"]["spec"]
    version = ".".join(kubernetes_validate.latest_version().split(".")[:2])
    for resource in (job, pod):
        kubernetes_validate.validate(resource, version, strict=True)
    del job["spec"]["template"]["spec"]["containers"][0]["name"]
    with pytest.raises(kubernetes_validate.ValidationError, match="name"):
        kubernetes_validate.validate(job, version, strict=True)


def test_what_a_job_mounts_in_the_documentation_it_has() -> None:
    page = (ROOT / "docs" / "production.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    docker, job = (yaml.safe_load(block) for block in blocks)
    mounted = {each.split(":")[1] for each in docker["work_pool"]["job_variables"]["volumes"]}
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert {one["mountPath"] for one in container["volumeMounts"]} == {"/store", "/photos"}
    assert mounted == {"/store", "/photos"}
    assert {one["name"] for one in container["volumeMounts"]} == {
        one["name"] for one in pod["volumes"]
    }
    (run,) = re.findall(r"^docker run (?:.|\\\n)*?(--out \S+)", page, re.MULTILINE)
    assert "/results:" in page.partition("docker run")[2].partition(run)[0]
    assert run.startswith("--out /results/")
