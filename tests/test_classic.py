"""The networks that are trained from scratch."""

import keras
import numpy as np
import pytest

from headstart.config import BackboneConfig
from headstart.errors import BackboneError
from headstart.tasks.backbones.backbone import load_backbone
from headstart.tasks.backbones.classic import build_classic, build_classic_classifier


def num_trainable(model) -> int:
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


def test_resnet9_has_the_published_number_of_parameters() -> None:
    model = build_classic_classifier("resnet9", (32, 32, 3), 10)
    weights = 9 * (3 * 64 + 64 * 128 + 2 * 128**2 + 128 * 256 + 256 * 512 + 2 * 512**2) + 5120
    assert weights == 6_568_640
    assert num_trainable(model) == weights + 2 * (64 + 3 * 128 + 256 + 3 * 512)


def test_lenet5_has_61706_parameters() -> None:
    assert build_classic_classifier("lenet5", (32, 32, 1), 10).count_params() == 61_706
    assert build_classic_classifier("lenet5", (28, 28, 1), 10).count_params() == 61_706


def test_alexnet_has_62378344_parameters() -> None:
    assert build_classic_classifier("alexnet", (227, 227, 3), 1000).count_params() == 62_378_344


def test_width_scales_resnet9s_channels() -> None:
    half = build_classic("resnet9", (16, 16, 1), width=0.5)
    assert half.output_shape == (None, 256)
    assert half.get_layer("prep_conv").filters == 32


def test_pooling_first_changes_the_order_and_not_the_parameters() -> None:
    after = build_classic("resnet9", (16, 16, 3), width=0.125)
    before = build_classic("resnet9", (16, 16, 3), width=0.125, pool_first=True)
    assert [v.shape for v in before.weights] == [v.shape for v in after.weights]
    assert before.get_layer("layer1_norm").output.shape[1] == 8
    assert after.get_layer("layer1_norm").output.shape[1] == 16


def test_images_that_are_too_small_are_refused() -> None:
    with pytest.raises(BackboneError, match="at least 8 pixels"):
        build_classic("resnet9", (7, 7, 3))


def test_the_table_has_them_without_pretrained_weights() -> None:
    with pytest.raises(BackboneError, match="headstart scratch"):
        load_backbone(BackboneConfig(name="resnet9"))
    backbone = load_backbone(BackboneConfig(name="lenet5", weights="random"), 32)
    assert isinstance(backbone.model, keras.Model)
    assert backbone.cuts[-1].activation_shape == (84,)
