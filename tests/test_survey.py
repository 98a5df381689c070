"""The survey: anatomies against published figures, and the command from end to end."""

import base64
import csv
import json
from collections.abc import Iterator
from pathlib import Path

import keras
import pytest
from typer.testing import CliRunner

from headstart.cli import app
from headstart.config import SurveyConfig, build_config
from headstart.errors import BackboneError, ConfigError, TrainingError
from headstart.flows.survey import survey  # also: Prefect keeps the stream it is imported with
from headstart.tasks.backbones.layer_graph import read_layer_graph
from headstart.tasks.surveying.anatomy import Anatomy, CutSize, count_depth, count_live
from headstart.tasks.surveying.child import run_child
from headstart.tasks.surveying.measuring import Measurement
from headstart.tasks.surveying.plots import draw_survey
from headstart.tasks.surveying.survey import Surveyed, table_rows
from tests.pipeline import add_images

# Parameters with the classifier, and layers with weights on the longest path.
# Sources: LeCun et al. 1998 (LeNet-5, whose partly connected third layer is fully connected here,
# so that it is 61,706 rather than 60,000); Krizhevsky et al. 2012 (AlexNet, 60 million, without
# its two groups 62.4 million); Simonyan & Zisserman 2014, table 2 (VGG16 138 million, VGG19 144
# million); the table of https://keras.io/api/applications (the others, in millions).
PUBLISHED = {
    "lenet5": (61_706, 5),
    "alexnet": (62_378_344, 8),
    "vgg16": (138_357_544, 16),
    "vgg19": (143_667_240, 19),
    "inception_v3": (23_851_784, 48),
    "resnet50": (25_636_712, 50),
    "densenet121": (8_062_504, 121),
    "mobilenet": (4_253_864, 28),
}


@pytest.fixture(scope="module")
def anatomies() -> dict[str, Anatomy]:
    made = [Anatomy.model_validate_json(line) for line in run_child("anatomy", *PUBLISHED)]
    return {one.name: one for one in made}


def test_parameters_and_depths_are_the_published_ones(anatomies: dict[str, Anatomy]) -> None:
    found = {name: (one.num_parameters, one.depth) for name, one in anatomies.items()}
    assert found == PUBLISHED


def test_flops_are_twice_the_published_multiply_adds(anatomies: dict[str, Anatomy]) -> None:
    # VGG16's convolutions: 15.3 billion MACs; ResNet50: 3.8 to 4.1 billion (He et al. 2015).
    assert anatomies["vgg16"].flops / 2 == pytest.approx(15.35e9, rel=0.01)
    assert 3.8e9 < anatomies["resnet50"].flops / 2 < 4.1e9


def test_activation_memory_of_vgg16_is_that_of_its_second_layer(
    anatomies: dict[str, Anatomy],
) -> None:
    # Input and result of the second convolution, 224 x 224 x 64 float32 each.
    assert anatomies["vgg16"].inference_bytes == 2 * 224 * 224 * 64 * 4


def test_a_network_that_cannot_be_built_is_an_error() -> None:
    # Without what to measure, so that it fails before it has imported TensorFlow.
    with pytest.raises(BackboneError, match=r"measure no_such_network: exit code 1: .*ValueError"):
        list(run_child("measure", "no_such_network"))


def residual_network() -> keras.Model:
    images = keras.Input((4, 4, 2))
    x = keras.layers.Conv2D(3, 3, padding="same")(images)
    y = keras.layers.Conv2D(5, 3, padding="same")(x)
    y = keras.layers.ReLU()(keras.layers.BatchNormalization()(y))
    y = keras.layers.Conv2D(3, 3, padding="same")(y)
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.add([x, y]))
    return keras.Model(images, pooled)


def test_what_is_alive_at_one_time_is_counted() -> None:
    model = residual_network()
    # While the third convolution runs: x for the shortcut, y before it, y behind it.
    expected = 16 * (3 + 5 + 3)
    assert count_live(read_layer_graph(model), model.output_shape) == expected


def test_depth_counts_kernels_on_the_longest_path() -> None:
    assert count_depth(read_layer_graph(residual_network())) == 3


def surveyed(name: str, flops: int, accuracy: float | None) -> Surveyed:
    return Surveyed(
        anatomy=Anatomy(
            name=name,
            family="f",
            image_size=8,
            num_parameters=10,
            num_backbone_parameters=5,
            flops=flops,
            depth=2,
            num_features=4,
            inference_bytes=100,
            training_bytes=300,
            cuts=(CutSize(name="top", activation_shape=(4,), bytes_per_image=8, flops_before=1),),
        ),
        measurements=(
            Measurement(batch_size=1, images_per_s=10.0, memory_bytes=1000),
            Measurement(batch_size=8, images_per_s=40.0, memory_bytes=None),
        ),
        accuracy=accuracy,
    )


def test_rows_come_cheapest_first_with_a_column_for_each_batch_size() -> None:
    rows = table_rows([surveyed("dear", 9, 0.5), surveyed("cheap", 1, None)])
    assert [row["backbone"] for row in rows] == ["cheap", "dear"]
    assert rows[0]["images_per_s_8"] == 40.0
    assert rows[0]["memory_mb_8"] is None


def test_there_is_a_plot_for_what_there_are_figures_for() -> None:
    judged = draw_survey([surveyed("a", 1, 0.5), surveyed("b", 2, 0.6)])
    captions = [caption for caption, _ in judged]
    assert [caption.split()[0] for caption in captions] == [
        "Accuracy", "Accuracy", "Throughput", "Memory",
    ]  # fmt: skip
    assert all(picture.startswith("data:image/svg+xml;base64,") for _, picture in judged)
    for _, picture in judged:  # letters in the page's colour, light or dark, and no white sheet
        drawn = base64.b64decode(picture.partition(",")[2]).decode()
        assert "currentColor" in drawn
        assert "#ffffff" not in drawn
    bare = surveyed("a", 1, None).model_copy(update={"measurements": ()})
    assert len(draw_survey([bare])) == 1


def test_the_command_surveys_measures_and_repeats_nothing(
    anatomies: dict[str, Anatomy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def child(task: str, *arguments: str) -> Iterator[str]:
        if task == "anatomy":  # as the child has told already
            return iter([anatomies[name].model_dump_json() for name in arguments])
        return run_child(task, *arguments)

    monkeypatch.setattr("headstart.tasks.surveying.stage.run_child", child)
    out = tmp_path / "out"
    arguments = ["survey", "--backbones", "lenet5", "--out", str(out), "--json"]
    arguments += ["--set", "measuring.seconds=0.01", "--set", "measuring.batch_sizes=[1, 4]"]
    first = CliRunner().invoke(app, arguments)
    assert first.exit_code == 0, first.output
    (one,) = json.loads(first.stdout)["metrics"]["backbones"]
    assert [point["batch_size"] for point in one["measurements"]] == [1, 4]
    assert all(point["images_per_s"] > 0 for point in one["measurements"])
    (row,) = csv.DictReader((out / "survey.csv").read_text().splitlines())
    assert row["parameters"] == "61706"
    assert "lenet5" in (out / "survey.html").read_text()
    assert "c1" in (out / "cuts.csv").read_text()
    again = CliRunner().invoke(app, ["survey", "--config", str(out / "config.yaml"), "--json"])
    stages = json.loads(again.stdout)["stages"]
    assert {one["status"] for one in stages} == {"hit"}
    printed = CliRunner().invoke(app, ["survey", "--config", str(out / "config.yaml")])
    assert "lenet5" in printed.stdout


def test_a_name_that_is_not_in_the_table_is_refused(tmp_path: Path) -> None:
    config = build_config(SurveyConfig, overrides={"backbones": ["resnet_50"]})
    with pytest.raises(ConfigError, match="did you mean resnet50"):
        survey.fn(config, tmp_path / "store")


def test_a_class_without_training_images_is_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def child(*arguments: str) -> Iterator[str]:
        raise AssertionError(arguments)

    monkeypatch.setattr("headstart.tasks.surveying.stage.run_child", child)
    for number, place in enumerate(("train/red", "val/red", "val/blue")):
        part, label = place.split("/")
        add_images(tmp_path / "gaps" / part, label, range(10 * number, 10 * number + 3))
    config = build_config(
        SurveyConfig, overrides={"backbones": ["lenet5"], "dataset.images": str(tmp_path / "gaps")}
    )
    with pytest.raises(TrainingError, match="none of blue"):
        survey.fn(config, tmp_path / "store")


def test_batch_sizes_ascend() -> None:
    with pytest.raises(ConfigError, match="ascend"):
        build_config(SurveyConfig, overrides={"measuring.batch_sizes": [8, 1]})
