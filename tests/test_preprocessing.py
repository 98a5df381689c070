import keras
import numpy as np
import pytest

from headstart.tasks.backbones.preprocessing import Preprocessing

MODES = ("none", "tf", "torch", "caffe", "lite")
PIXEL = np.array([[[[0, 127, 255]]]], np.uint8)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("none", [0, 127, 255]),
        ("tf", [-1, 127 / 127.5 - 1, 1]),
        ("lite", [-127 / 128, 0, 1]),
        ("torch", [-0.485 / 0.229, (127 / 255 - 0.456) / 0.224, (1 - 0.406) / 0.225]),
        ("caffe", [255 - 103.939, 127 - 116.779, 0 - 123.68]),
    ],
)
def test_each_mode_follows_its_formula(mode, expected):
    received = Preprocessing(mode)(PIXEL)

    assert received.dtype == "float32"
    np.testing.assert_allclose(np.asarray(received)[0, 0, 0], expected, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_preprocessing_inside_a_saved_model_is_the_same(mode, tmp_path):
    images = keras.Input((1, 1, 3), dtype="uint8")
    keras.Model(images, Preprocessing(mode)(images)).save(tmp_path / "model.keras")

    loaded = keras.models.load_model(tmp_path / "model.keras")

    np.testing.assert_array_equal(loaded(PIXEL), Preprocessing(mode)(PIXEL))


@pytest.mark.parametrize("mode", MODES)
def test_mixed_precision_does_not_round_the_pixels(mode):
    expected = np.asarray(Preprocessing(mode)(PIXEL))
    keras.config.set_dtype_policy("mixed_float16")
    try:
        received = Preprocessing(mode)(PIXEL)
    finally:
        keras.config.set_dtype_policy("float32")

    assert received.dtype == "float32"
    np.testing.assert_array_equal(received, expected)
