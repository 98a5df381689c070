"""The page on running a model elsewhere: its code, run as it stands there."""

import base64
import contextlib
import functools
import json
import re
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from PIL import Image

from headstart.tasks.export.runtimes import load_network
from tests.browser import Browser, needs_browser
from tests.exported import CLASS_NAMES, export_tiny, image_of

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")


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


class StandIn(BaseHTTPRequestHandler):
    """Answers as TensorFlow Serving's REST interface does, with the SavedModel of a folder.

    Source: TensorFlow Serving's "RESTful API", the row format with binary values as b64.
    """

    models: Path

    def do_POST(self) -> None:
        match = re.fullmatch(r"/v1/models/(\w+):predict", self.path)
        assert match
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        files = [base64.b64decode(one["b64"]) for one in body["instances"]]
        loaded = tf.saved_model.load(str(self.models / match[1] / "1"))
        answers = loaded.signatures[body["signature_name"]](tf.constant(files))
        lists = {name: value.numpy().tolist() for name, value in answers.items()}
        rows = [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
        data = json.dumps({"predictions": rows}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments: object) -> None:
        """Keep quiet."""


@contextlib.contextmanager
def serving(handler: Any) -> Iterator[int]:
    """Serve on a free port of loopback."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def test_the_client_of_tensorflow_serving_sends_what_the_signature_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "runs" / "flowers"
    folder.mkdir(parents=True)
    export_tiny(folder, ("saved_model", "onnx"))
    photo = image_of(31, 57)
    Image.fromarray(photo).save(tmp_path / "photo.jpg", "PNG")
    monkeypatch.chdir(tmp_path)
    layout, _, _ = code_under("TensorFlow Serving", "sh").partition("\ndocker")
    subprocess.run(["bash", "-euc", layout], check=True)
    StandIn.models = tmp_path / "models"
    with serving(StandIn) as port:
        exec(code_under("TensorFlow Serving").replace(":8501/", f":{port}/"), {})
    wanted = load_network(folder / "model.onnx")[1](photo[None])[0].argmax()
    assert capsys.readouterr().out.rstrip("\n") == CLASS_NAMES[wanted]


def install_onnxruntime_web(folder: Path) -> None:
    """Do what `npm install onnxruntime-web` does, without its dependencies for Node."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not on PATH")
    pack = ["npm", "pack", "--silent", "onnxruntime-web@^1.20"]
    done = subprocess.run(pack, cwd=folder, capture_output=True, text=True, timeout=200)
    if done.returncode:
        pytest.skip(f"npm's registry gives no onnxruntime-web: {done.stderr.strip()[:200]}")
    (archive,) = folder.glob("onnxruntime-web-*.tgz")
    with tarfile.open(archive) as files:
        files.extractall(folder, filter="data")
    (folder / "node_modules").mkdir()
    (folder / "package").rename(folder / "node_modules" / "onnxruntime-web")


@needs_browser
def test_the_page_classifies_a_dropped_photo_in_the_browser(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    install_onnxruntime_web(site)
    export_tiny(site, ("onnx",))
    shutil.copy(ROOT / "examples" / "browser.html", site / "index.html")
    photo = image_of(31, 57)
    Image.fromarray(photo).save(site / "photo.png")
    shares = load_network(site / "model.onnx")[1](photo[None])[0]
    handler = functools.partial(QuietFiles, directory=str(site))
    with serving(handler) as port, Browser() as browser:
        browser.open(f"http://127.0.0.1:{port}/")
        browser.wait_for("ready: 4 classes")
        browser.evaluate("""(async () => {
          const data = await (await fetch("photo.png")).blob();
          const files = new DataTransfer();
          files.items.add(new File([data], "photo.png", { type: "image/png" }));
          document.getElementById("drop").dispatchEvent(
            new DragEvent("drop", { dataTransfer: files, cancelable: true, bubbles: true }));
        })()""")
        name = " ".join(CLASS_NAMES[shares.argmax()].split())
        shown = browser.wait_for(f"this is {name}")
        rows = browser.evaluate("[...document.querySelectorAll('tr')].map(r => r.innerText)")
    assert f"{100 * shares.max():.1f} %" in shown
    assert len(rows) == len(CLASS_NAMES)


class QuietFiles(SimpleHTTPRequestHandler):
    """Serves files, and logs nothing."""

    def log_message(self, *arguments: object) -> None:
        """Keep quiet."""
