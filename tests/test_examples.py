"""The notebooks of examples/, run in a kernel as a person runs them."""

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parent.parent / "examples"
FAILING = "headstart.train('no-such-folder')"


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """Run all notebooks one after the other in one kernel: TensorFlow is imported once."""
    folder = tmp_path_factory.mktemp("notebooks")
    paths = sorted(EXAMPLES.glob("*.ipynb"), reverse=True)
    notebooks = [nbformat.read(path, as_version=4) for path in paths]
    whole = nbformat.v4.new_notebook()
    for notebook in notebooks:
        whole.cells += notebook.cells
    failing = nbformat.v4.new_code_cell(FAILING, metadata={"tags": ["raises-exception"]})
    whole.cells.append(failing)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADSTART_STORE", str(folder / "store"))
        patch.setenv("JUPYTER_ALLOW_INSECURE_WRITES", "1")
        NotebookClient(whole, timeout=None, resources={"metadata": {"path": str(folder)}}).execute()
    ends = {path.stem: notebook.cells for path, notebook in zip(paths, notebooks, strict=True)}
    return {**ends, "failing": [failing]}


def outputs(cells: list[Any]) -> list[Any]:
    return [output for cell in cells if cell.cell_type == "code" for output in cell.outputs]


def result(cell: Any) -> str:
    (text,) = (one["data"]["text/plain"] for one in cell.outputs if "execution_count" in one)
    return str(text)


@pytest.mark.timeout(1500)  # on a machine with ten times its load; else it takes one minute
def test_the_notebooks_run_and_show_what_they_say(cells: dict[str, list[Any]]) -> None:
    code = {name: [one for one in of if one.cell_type == "code"] for name, of in cells.items()}
    first, own, choosing = (
        code[name] for name in ("first_classifier", "own_training_loop", "choosing_a_backbone")
    )
    assert "data:image/png;base64" in first[1].outputs[0]["data"]["text/html"]
    assert "'bottlenecks': 'hit'" in result(first[6])
    assert "'head': 'miss'" in result(first[6])
    found = own[1].outputs[-1]["text"]
    assert re.search(r"softmax|logits|learning rate|diverg", found), found
    assert result(own[2]).endswith("[])")
    assert "efficientnet_lite0" in result(choosing[0])
    assert "'bottlenecks': 0" in result(choosing[2])


def test_a_training_shows_one_block_and_no_stream(cells: dict[str, list[Any]]) -> None:
    (train, *_) = [one for one in cells["first_classifier"] if one.cell_type == "code"]
    assert [output.output_type for output in train.outputs] == ["display_data"]
    shown = train.outputs[0]["data"]["text/plain"]
    # A hit where a notebook before it has made the same ones.
    assert re.search(r"^(MISS|HIT ) bottlenecks", shown, re.MULTILINE), shown
    assert "train loss" in shown
    stderr = [
        line
        for name in cells
        for one in outputs(cells[name])
        if one.get("name") == "stderr"
        for line in one["text"].splitlines()
    ]
    # Keras's own words on the mistake that a notebook makes on purpose.
    assert len(stderr) <= 2, stderr
    assert all("from_logits" in line for line in stderr), stderr


def test_an_error_takes_three_lines(cells: dict[str, list[Any]]) -> None:
    (failed,) = [one for one in outputs(cells["failing"]) if one.output_type == "error"]
    lines = failed["traceback"]
    assert [line.partition(":")[0].strip() for line in lines] == ["DatasetError", "got", "next"]


def test_no_output_is_kept_in_the_repository() -> None:
    for path in EXAMPLES.glob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        assert outputs(notebook.cells) == [], path
