"""The page on running a model elsewhere: its code, run as it stands there."""

import re
from pathlib import Path

import pytest
from PIL import Image

from headstart.tasks.export.runtimes import load_network
from tests.exported import CLASS_NAMES, export_tiny, image_of

PAGE = (Path(__file__).parent.parent / "docs" / "serving.md").read_text(encoding="utf-8")


def code_under(title: str, language: str = "python") -> str:
    section = PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    found = re.search(rf"^```{language}\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)
    assert found, f"no {language} under {title}"
    return found[1]


def test_the_code_for_onnx_runtime_names_the_photo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    export_tiny(tmp_path, ("onnx",))
    photo = image_of(31, 57)
    Image.fromarray(photo).save(tmp_path / "photo.jpg", "PNG")
    monkeypatch.chdir(tmp_path)
    exec(code_under("ONNX Runtime"), {})
    wanted = load_network(tmp_path / "model.onnx")[1](photo[None])[0].argmax()
    assert capsys.readouterr().out.rstrip("\n") == CLASS_NAMES[wanted]
