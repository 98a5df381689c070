"""The nearest images: exactly, by an index, from the command line and from Python."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import headstart
from headstart.cli import app
from headstart.errors import DatasetError
from headstart.tasks.searching.nearest import directions, search_exactly
from tests.pipeline import SIDE, Pipeline, computed

ROWS = directions(np.random.default_rng(0).normal(size=(500, 12)).astype(np.float32))


def test_blocks_give_what_one_product_gives() -> None:
    queries = ROWS[[3, 77]]
    found = search_exactly((ROWS[start : start + 64] for start in range(0, 500, 64)), queries, 9)
    wanted = np.argsort(-(queries @ ROWS.T), axis=1)[:, :9]
    np.testing.assert_array_equal(found.rows, wanted)
    assert found.rows[:, 0].tolist() == [3, 77]
    np.testing.assert_allclose(found.similarities[:, 0], 1.0, rtol=1e-6)
    assert search_exactly(iter([ROWS[:4]]), queries, 9).rows.shape == (2, 4)


def test_a_search_finds_the_colour_and_a_second_extracts_nothing(
    finished: Pipeline, tmp_path: Path
) -> None:
    (tmp_path / "queries").mkdir()
    Image.new("RGB", (SIDE, SIDE), (205, 55, 45)).save(tmp_path / "queries" / "new.png")
    (tmp_path / "queries" / "broken.png").write_bytes(b"no image")
    known = finished.images / "green" / "0100.png"
    arguments = ["search", str(finished.images), str(known), str(tmp_path / "queries")]
    arguments += ["--store", str(finished.store.root), "--backbone", str(finished.backbone)]
    arguments += ["--set", "bottlenecks.batch_size=4", "--top", "4"]
    sheet = tmp_path / "sheet.jpg"
    result = CliRunner().invoke(app, [*arguments, "--json", "--sheet", str(sheet)])
    assert result.exit_code == 0, (result.output, result.exception)
    told = json.loads(result.stdout)
    first, second = told["queries"]
    assert first["results"][0] == {
        "path": str(known), "similarity": pytest.approx(1.0, abs=1e-4), "label": "green",
    }  # fmt: skip
    assert [len(one["results"]) for one in told["queries"]] == [4, 4]
    assert second["query"].endswith("new.png")
    assert second["results"][0]["label"] == "red"
    assert [Path(one["path"]).name for one in told["bad"]] == ["broken.png"]
    with Image.open(sheet) as drawn:
        assert drawn.width > 4 * 192
    assert finished.num_passed() == 0  # the collection's rows were there
    text = CliRunner().invoke(app, arguments).stdout
    assert f"{known}\n  1.0000  {known}  green\n" in text


def test_from_python_one_query_gives_a_list_and_several_a_list_each(finished: Pipeline) -> None:
    paths = [finished.images / "blue" / "0000.png", finished.images / "red" / "0200.png"]
    given = {"backbone": str(finished.backbone), "store": finished.store.root}
    hits = headstart.search(finished.images, paths[0], 3, **given)
    assert hits[0].path == str(paths[0])
    assert len(hits) == 3
    both = headstart.search(finished.images, paths, 2, **given)
    assert [found[0].label for found in both.values()] == ["blue", "red"]
    with pytest.raises(DatasetError, match=r"missing\.png"):
        headstart.search(finished.images, "missing.png", **given)


def test_very_many_images_are_looked_up_in_an_index_that_is_kept(
    finished: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("faiss", reason="the extra search is not installed")
    query = finished.images / "blue" / "0003.png"
    given = {"backbone": str(finished.backbone), "store": finished.store.root}
    exact = headstart.search(finished.images, query, 5, **given)
    monkeypatch.setattr("headstart.flows.search.MAX_EXACT", 10)
    indexed = headstart.search(finished.images, query, 5, **given)
    assert [hit.path for hit in indexed] == [hit.path for hit in exact]
    (manifest,) = finished.store.manifests("search_index")
    assert manifest["recall"] == 1.0
    monkeypatch.setattr("headstart.tasks.searching.nearest._build", None)
    assert headstart.search(finished.images, query, 5, **given) == indexed


def test_a_runs_embeddings_are_its_bottlenecks(finished: Pipeline) -> None:
    summary = finished.run()
    assert computed(summary)["bottlenecks"] == 0
    run = headstart.load(summary.run_dir)
    vectors = run.embed(finished.images / "blue")
    assert (vectors.shape, vectors.dtype) == ((12, 16), np.float32)
    index = finished.index()
    row = next(row for row in index.rows if row.path == "blue/0000.png")
    (collection, *_) = finished.collections()
    from headstart.tasks.views.addresses import plain_rows

    stored = collection.select(plain_rows([row.digest])).gather([0])[0]
    np.testing.assert_allclose(vectors[0], stored.astype(np.float32), rtol=2e-3, atol=2e-3)
    pixels = np.asarray(Image.open(finished.images / "blue" / "0000.png"))
    np.testing.assert_allclose(run.embed(pixels), vectors[:1], rtol=1e-3, atol=1e-3)
