"""Grad-CAM against closed forms, on models of every build, and the command around it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from headstart.cli import app
from headstart.errors import ConfigError, DatasetError, ExportError
from headstart.tasks.explanation.explain import explain_images
from headstart.tasks.explanation.grad_cam import choose_layer, heatmaps, map_layers
from headstart.tasks.explanation.layers import find_layer, named_layers
from headstart.tasks.explanation.overlay import overlay
from headstart.tasks.explanation.subject import load_subject
from headstart.tasks.views.contact_sheet import Tile, contact_sheet
from tests.pipeline import Pipeline

SIDE = 12


@pytest.fixture
def images() -> Any:
    return np.random.default_rng(0).uniform(0, 1, (3, SIDE, SIDE, 3)).astype(np.float32)


def trunk_layers() -> list[Any]:
    return [
        keras.layers.Conv2D(4, 3, activation="relu", name="conv1"),
        keras.layers.Conv2D(5, 3, activation="relu", name="conv2"),
    ]


def classifier(activation: str = "softmax") -> list[Any]:
    return [
        keras.layers.GlobalAveragePooling2D(name="pool"),
        keras.layers.Dense(3, activation=activation, name="dense"),
    ]


def flat() -> Any:
    x = inputs = keras.Input((SIDE, SIDE, 3))
    for layer in (*trunk_layers(), *classifier()):
        x = layer(x)
    return keras.Model(inputs, x)


def nested() -> Any:
    x = inner = keras.Input((SIDE, SIDE, 3))
    for layer in trunk_layers():
        x = layer(x)
    backbone = keras.Model(inner, x, name="backbone")
    inputs = keras.Input((SIDE, SIDE, 3))
    x = backbone(inputs)
    for layer in classifier():
        x = layer(x)
    return keras.Model(inputs, x)


def sequential() -> Any:
    return keras.Sequential([keras.Input((SIDE, SIDE, 3)), *trunk_layers(), *classifier()])


def sequential_in_sequential() -> Any:
    backbone = keras.Sequential([keras.Input((SIDE, SIDE, 3)), *trunk_layers()], name="backbone")
    return keras.Sequential([backbone, *classifier()])


def unbuilt_sequential() -> Any:
    return keras.Sequential([*trunk_layers(), *classifier()])


def separate_softmax() -> Any:
    layers = [*trunk_layers(), *classifier("linear"), keras.layers.Softmax()]
    return keras.Sequential([keras.Input((SIDE, SIDE, 3)), *layers])


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.trunk = trunk_layers()
        self.pool, self.dense = classifier()

    def call(self, inputs: Any) -> Any:
        for layer in self.trunk:
            inputs = layer(inputs)
        return self.dense(self.pool(inputs))


BUILDS: list[Callable[[], Any]] = [
    flat,
    nested,
    sequential,
    sequential_in_sequential,
    unbuilt_sequential,
    separate_softmax,
    Subclassed,
]


def with_weights(model: Any, images: Any) -> Any:
    model(images)
    random = np.random.default_rng(1)
    model.set_weights([random.normal(0, 0.5, weight.shape) for weight in model.get_weights()])
    return model


@pytest.mark.parametrize("build", BUILDS, ids=lambda build: build.__name__)
def test_every_build_of_one_network_gives_the_same_heatmaps(
    build: Callable[[], Any], images: Any
) -> None:
    expected = heatmaps(with_weights(flat(), images), images, "conv2")
    model = with_weights(build(), images)
    assert not choose_layer(model, images).startswith("conv1")
    seen = heatmaps(model, images, choose_layer(model, images, "conv2"))
    assert expected.maps.max() == 1.0
    np.testing.assert_allclose(seen.maps, expected.maps, atol=1e-5)
    np.testing.assert_allclose(seen.probabilities, expected.probabilities, atol=1e-5)


def test_grad_cam_before_average_pooling_is_the_class_activation_map(images: Any) -> None:
    model = with_weights(flat(), images)
    activation = keras.Model(model.inputs, model.get_layer("conv2").output).predict(images)
    kernel = model.get_layer("dense").kernel.numpy()
    for number in range(3):
        seen = heatmaps(model, images, "conv2", np.full(3, number))
        expected = np.maximum(activation @ kernel[:, number], 0)  # Zhou et al. 2016, equation 2
        peak = expected.max(axis=(1, 2), keepdims=True)
        expected = np.divide(expected, peak, out=np.zeros_like(expected), where=peak > 0)
        np.testing.assert_allclose(seen.maps, expected, atol=1e-5)


def test_grad_cam_plus_plus_follows_its_formula(images: Any) -> None:
    model = with_weights(flat(), images)
    activation = keras.Model(model.inputs, model.get_layer("conv2").output).predict(images)
    cells = activation.shape[1] * activation.shape[2]
    slope = model.get_layer("dense").kernel.numpy()[:, 1] / cells  # dy/dA, the same in each cell
    bottom = 2 * slope**2 + activation.sum(axis=(1, 2)) * slope**3
    weights = cells * np.divide(slope**2, bottom) * np.maximum(slope, 0)
    expected = np.maximum(np.einsum("nhwc,nc->nhw", activation, weights), 0)
    expected /= expected.max(axis=(1, 2), keepdims=True)
    seen = heatmaps(model, images, "conv2", np.full(3, 1), "grad-cam++")
    np.testing.assert_allclose(seen.maps, expected, rtol=1e-4, atol=1e-5)


def logits(num_columns: int) -> Any:
    classify = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(num_columns)]
    return keras.Sequential([keras.Input((SIDE, SIDE, 3)), *trunk_layers(), *classify])


def test_logits_are_told_as_the_probabilities_that_they_stand_for(images: Any) -> None:
    expected = heatmaps(with_weights(flat(), images), images, "conv2")
    seen = heatmaps(with_weights(logits(3), images), images, "conv2")
    np.testing.assert_allclose(seen.maps, expected.maps, atol=1e-5)
    np.testing.assert_allclose(seen.probabilities, expected.probabilities, atol=1e-5)
    assert seen.classes.tolist() == seen.likeliest.tolist() == expected.classes.tolist()


@pytest.mark.parametrize("logit", [-0.3, 0.3, 7.0])
def test_a_single_logit_is_told_as_the_probability_of_class_1(images: Any, logit: float) -> None:
    model = logits(1)
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([0 * kernel, bias + logit])
    seen = heatmaps(model, images, "conv2")
    one = 1 / (1 + np.exp(-logit))
    np.testing.assert_allclose(seen.probabilities, [[1 - one, one]] * 3, atol=1e-6)
    assert seen.likeliest.tolist() == seen.classes.tolist() == [int(logit > 0)] * 3


@pytest.mark.parametrize("num_columns", [1, 3])
def test_probabilities_of_an_operation_stay_as_they_are(images: Any, num_columns: int) -> None:
    with_layers = with_weights(logits(num_columns), images)
    squash = keras.ops.softmax if num_columns > 1 else keras.ops.sigmoid
    model = keras.Model(with_layers.inputs, squash(with_layers.outputs[0]))
    seen = heatmaps(model, images, choose_layer(model, images, "conv2"))
    expected = heatmaps(with_layers, images, "conv2")
    np.testing.assert_allclose(seen.probabilities, expected.probabilities, atol=1e-6)
    assert seen.likeliest.tolist() == expected.likeliest.tolist()


def test_an_image_explained_alone_or_in_a_batch_gives_the_same_map(images: Any) -> None:
    model = with_weights(flat(), images)
    together = heatmaps(model, images, "conv2").maps
    alone = [heatmaps(model, images[[i]], "conv2").maps[0] for i in range(3)]
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_the_evidence_is_where_the_class_is() -> None:
    """A network that answers "bright" by a bright spot is shown to look at the spot."""
    model = keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 1)),
            keras.layers.Conv2D(1, 3, padding="same", activation="relu", name="conv"),
            keras.layers.GlobalMaxPooling2D(),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.set_weights([np.ones((3, 3, 1, 1)) / 9, np.zeros(1), np.ones((1, 1)), np.zeros(1)])
    spot = np.zeros((1, SIDE, SIDE, 1), np.float32)
    spot[0, 7:10, 2:5] = 1
    seen = heatmaps(model, spot, "conv")
    assert seen.classes.tolist() == [1]
    assert np.unravel_index(seen.maps[0].argmax(), (SIDE, SIDE)) == (8, 3)
    assert seen.probabilities.shape == (1, 2)
    against = heatmaps(model, spot, "conv", np.array([0]))
    assert against.maps.max() == 0  # nothing in the image speaks for the other class


def test_layers_are_left_as_they_were(images: Any) -> None:
    model = with_weights(nested(), images)
    before = model.predict(images)
    heatmaps(model, images, "backbone/conv2")
    assert all("call" not in vars(layer) for layer in named_layers(model).values())
    assert model.get_layer("dense").activation is keras.activations.softmax
    np.testing.assert_array_equal(model.predict(images), before)


def test_layers_are_listed_as_they_compute_with_their_path(images: Any) -> None:
    assert map_layers(with_weights(nested(), images), images) == [
        "backbone/conv1",
        "backbone/conv2",
    ]


def test_a_layer_is_found_by_an_end_of_its_path_that_is_unique() -> None:
    names = ["left/conv", "right/conv", "right/out"]
    assert find_layer(names, "out") == "right/out"
    assert find_layer(names, "left/conv") == "left/conv"
    with pytest.raises(ConfigError, match=r"the name of 2 of them\n.*left/conv, right/conv"):
        find_layer(names, "conv")
    with pytest.raises(ConfigError, match="there is no such layer"):
        find_layer(names, "pool")


def test_a_model_without_maps_is_refused(images: Any) -> None:
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(2)])
    with pytest.raises(ConfigError, match="no layer has one"):
        choose_layer(model, images)


def test_a_layer_that_the_answer_does_not_depend_on_is_refused(images: Any) -> None:
    inputs = keras.Input((SIDE, SIDE, 3))
    x = keras.layers.Conv2D(2, 3, name="conv")(inputs)
    x = keras.ops.stop_gradient(x)
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    with pytest.raises(ExportError, match="conv: no gradient"):
        heatmaps(model, images, "conv")


def test_an_overlay_leaves_the_view_where_there_is_no_evidence() -> None:
    view = np.full((8, 8, 3), 100, np.uint8)
    heat = np.zeros((2, 2), np.float32)
    np.testing.assert_array_equal(overlay(view, heat), view)
    heat[0, 0] = 1
    red, _, blue = overlay(view, heat)[0, 0].astype(int)
    assert red > blue
    np.testing.assert_array_equal(overlay(view, heat)[7, 7], [100, 100, 100])


def test_a_contact_sheet_has_room_for_all_rows() -> None:
    tile = Tile(np.zeros((4, 8, 3), np.uint8), "a very long caption " * 20)
    one = contact_sheet([[tile, tile]])
    five = contact_sheet([[tile, tile]] * 5, columns_wide=2)
    assert five.width > 1.9 * one.width - 20
    assert five.height > 2.9 * one.height - 30


def test_the_command_explains_an_exported_model(finished: Pipeline, tmp_path: Path) -> None:
    run = finished.run()
    (finished.images / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    arguments = ["explain", str(run.run_dir), str(finished.images), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, [*arguments, "--json", "--layer", "second"])
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert len(answer["explanations"]) == 36
    assert [Path(each["path"]).name for each in answer["bad"]] == ["broken.png"]
    first = answer["explanations"][0]
    assert first["layer"] == "second"
    assert first["label"] == first["explained"]
    with Image.open(first["overlay"]) as picture:
        assert picture.size == (16, 16)
    assert len({each["overlay"] for each in answer["explanations"]}) == 36
    assert Path(answer["sheet"]).is_file()
    again = CliRunner().invoke(app, [*arguments, "--class", "red", "--method", "grad-cam++"])
    assert again.exit_code == 0, again.output
    assert len(list((tmp_path / "out").glob("*.png"))) == 37  # the same names, written again
    other = CliRunner().invoke(app, [*arguments, "--image-size", "48"])
    assert "only takes images of 16 x 16 pixels" in str(other.exception)


def test_a_foreign_model_is_explained_by_class_numbers(tmp_path: Path, images: Any) -> None:
    with_weights(nested(), images).save(tmp_path / "theirs.keras")
    Image.fromarray((images[0] * 255).astype(np.uint8)).save(tmp_path / "one.png")
    subject = load_subject(tmp_path / "theirs.keras")
    (made,) = explain_images(subject, [tmp_path / "one.png"], tmp_path / "out", class_name="2")
    assert (made.explained, made.layer) == ("2", "backbone/conv2")
    with pytest.raises(ConfigError, match="has no such class"):
        explain_images(subject, [tmp_path / "one.png"], tmp_path / "out", class_name="tulip")


def test_no_picture_replaces_an_image(tmp_path: Path, images: Any) -> None:
    with_weights(nested(), images).save(tmp_path / "theirs.keras")
    (tmp_path / "photos").mkdir()
    Image.fromarray((images[0] * 255).astype(np.uint8)).save(tmp_path / "photos" / "one.png")
    before = (tmp_path / "photos" / "one.png").read_bytes()
    subject = load_subject(tmp_path / "theirs.keras")
    with pytest.raises(ConfigError, match=r"one\.png"):
        explain_images(subject, [tmp_path / "photos"], tmp_path / "photos" / ".." / "photos")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "one.png").symlink_to(tmp_path / "photos" / "one.png")
    with pytest.raises(ConfigError, match=r"one\.png"):
        explain_images(subject, [tmp_path / "links"], tmp_path / "links")
    # The link is no image to explain here: it is replaced, and what it led to stays.
    (made,) = explain_images(subject, [tmp_path / "photos" / "one.png"], tmp_path / "links")
    assert not Path(made.overlay).is_symlink()
    assert {path.name for path in (tmp_path / "links").iterdir()} == {
        "one.png",
        "contact_sheet.png",
    }
    assert (tmp_path / "photos" / "one.png").read_bytes() == before


@pytest.mark.parametrize("place", ["file", "file/inside", "taken"])
def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path, images: Any, place: str) -> None:
    with_weights(flat(), images).save(tmp_path / "net.keras")
    Image.fromarray((images[0] * 255).astype(np.uint8)).save(tmp_path / "one.png")
    (tmp_path / "file").write_text("precious")
    (tmp_path / "taken" / "one.png").mkdir(parents=True)
    subject = load_subject(tmp_path / "net.keras")
    with pytest.raises(ConfigError, match="the folder of --out cannot be written"):
        explain_images(subject, [tmp_path / "one.png"], tmp_path / place)
    assert (tmp_path / "file").read_text() == "precious"


def test_an_image_without_evidence_has_no_strongest_place(tmp_path: Path, images: Any) -> None:
    model = with_weights(nested(), images)
    kernel, bias = model.get_layer("dense").get_weights()
    model.get_layer("dense").set_weights([0 * kernel, bias])
    model.save(tmp_path / "theirs.keras")
    Image.fromarray((images[0] * 255).astype(np.uint8)).save(tmp_path / "one.png")
    subject = load_subject(tmp_path / "theirs.keras")
    (made,) = explain_images(subject, [tmp_path / "one.png"], tmp_path / "out")
    assert made.peak is None


def test_what_cannot_be_explained_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="no file"):
        load_subject(tmp_path / "nothing.keras")
    with pytest.raises(ExportError, match=r"a folder without model\.keras"):
        load_subject(tmp_path)
    (tmp_path / "bad.keras").write_bytes(b"PK\x03\x04 not a model")
    with pytest.raises(ExportError, match=r"damaged, or not a \.keras file"):
        load_subject(tmp_path / "bad.keras")
    inputs = keras.Input((None, None, 3))
    x = keras.layers.GlobalAveragePooling2D()(inputs)
    keras.Model(inputs, keras.layers.Dense(2)(x)).save(tmp_path / "any.keras")
    with pytest.raises(ConfigError, match="--image-size 224"):
        load_subject(tmp_path / "any.keras")
    assert load_subject(tmp_path / "any.keras", 32).image_size == 32
    for name, shape in (("wide", (224, 160, 3)), ("fixed", (32, None, 3))):
        x = keras.layers.GlobalAveragePooling2D()(inputs := keras.Input(shape))
        keras.Model(inputs, keras.layers.Dense(2)(x)).save(tmp_path / f"{name}.keras")
    for size in (None, 224):
        with pytest.raises(ExportError, match="input 224 x 160"):
            load_subject(tmp_path / "wide.keras", size)
    assert load_subject(tmp_path / "fixed.keras").image_size == 32
    with pytest.raises(ConfigError, match=r"32 x 32 pixels(.|\n)*--image-size 48"):
        load_subject(tmp_path / "fixed.keras", 48)
    x = keras.Input((5,))
    keras.Model(x, keras.layers.Dense(2)(x)).save(tmp_path / "table.keras")
    inputs = keras.Input((8, 8, 3))
    keras.Model(inputs, keras.ops.mean(inputs, axis=(1, 2, 3))).save(tmp_path / "number.keras")
    for name in ("table.keras", "number.keras"):
        with pytest.raises(ExportError, match="not a classifier from images"):
            load_subject(tmp_path / name)


def test_no_image_at_all_is_an_error(tmp_path: Path, images: Any) -> None:
    with_weights(flat(), images).save(tmp_path / "net.keras")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="no image to explain"):
        explain_images(load_subject(tmp_path / "net.keras"), [tmp_path / "empty"], tmp_path / "out")
