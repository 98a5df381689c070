"""The contract of every backbone of the table.

Covered: for every row of the table, that Keras has the builder, and that preprocessing and
default input size are Keras' own (`test_table_*`; nothing is built, so the largest networks are
included). For one network of each family (`FAMILIES`), at the smallest input it takes and with
random weights: the whole contract (cuts, features, tails, fingerprint, saving).
"""

import importlib
import subprocess
import sys

import keras
import numpy as np
import pytest

from headstart.config import BackboneConfig
from headstart.tasks.backbone_table import BACKBONES
from headstart.tasks.backbones import Backbone, load_backbone
from headstart.tasks.preprocessing import Preprocessing

# Keras saves a variable with np.array(variable), which NumPy 2 warns about.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

# The smallest network of each family, and the smallest input it takes.
FAMILIES = {
    "efficientnet_lite0": 32,
    "vgg16": 32,
    "resnet50": 32,
    "resnet50_v2": 32,
    "inception_v3": 75,
    "inception_resnet_v2": 75,
    "xception": 71,
    "mobilenet": 32,
    "mobilenet_v2": 32,
    "mobilenet_v3_small": 32,
    "densenet121": 32,
    "nasnet_mobile": 32,
    "efficientnet_b0": 32,
    "efficientnet_v2_b0": 32,
    "convnext_tiny": 32,
}
KERAS_NAMES = [name for name in BACKBONES if "lite" not in name]


def random_backbone(name: str, seed: int = 0) -> Backbone:
    return load_backbone(BackboneConfig(name=name, weights="random", seed=seed), FAMILIES[name])


def random_images(size: int, num_images: int = 1) -> np.ndarray:
    shape = (num_images, size, size, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def relative_error(received, expected) -> float:
    received, expected = np.asarray(received), np.asarray(expected)
    assert received.shape == expected.shape
    assert np.abs(expected).max() > 0
    return float(np.abs(received - expected).max() / np.abs(expected).max())


@pytest.fixture(scope="module", params=FAMILIES)
def backbone(request) -> Backbone:
    return random_backbone(request.param)


def middle_cut(backbone: Backbone) -> str:
    return backbone.cuts[len(backbone.cuts) // 2].name


# The contract, on one network of each family


def test_contract_cuts_end_in_the_pooled_top(backbone):
    assert len(backbone.cuts) >= 2
    top = backbone.cuts[-1]
    assert top.name == "top"
    assert top.activation_shape == (backbone.model.output_shape[-1],)
    assert top.flops_after == 0
    flops = [cut.flops_before for cut in backbone.cuts]
    assert flops == sorted(flops)
    assert flops[-1] > 0


def test_contract_extractor_gives_the_activations_of_the_uncut_network(backbone):
    middle = backbone.resolve_cut(middle_cut(backbone))
    pixels = random_images(backbone.image_size)
    layer = next(op for op in backbone.model.operations if op.name == middle.layer)
    uncut = keras.Model(backbone.model.inputs, [layer.output, backbone.model.outputs[0]])
    expected = uncut(backbone.preprocessing(pixels), training=False)

    received = backbone.extractor([middle.name, "top"])(pixels)

    assert len(received) == 2
    assert received[0].shape[1:] == middle.activation_shape
    assert relative_error(received[0], expected[0]) < 1e-5
    assert relative_error(received[1], expected[1]) < 1e-5


def test_contract_tail_carries_on_from_the_cut(backbone):
    middle = middle_cut(backbone)
    images = backbone.preprocessing(random_images(backbone.image_size))
    activation, expected = backbone.extractor([middle, "top"], preprocess=False)(images)

    tail = backbone.tail(middle)

    # Even asked to train: batch normalisation keeps the backbone's statistics.
    assert relative_error(tail(activation, training=True), expected) < 1e-4
    assert len(tail.trainable_weights) > 0


def test_contract_fingerprint_is_the_same_for_equal_builds_only(backbone):
    same = random_backbone(backbone.name)
    middle = middle_cut(backbone)

    assert same.fingerprint("top") == backbone.fingerprint("top")
    assert [cut.name for cut in same.cuts] == [cut.name for cut in backbone.cuts]
    assert same.fingerprint(middle) != same.fingerprint("top")
    last_kernel = [weight for weight in same.model.weights if len(weight.shape) > 1][-1]
    last_kernel.assign(last_kernel + 1.0)
    assert same.fingerprint("top")["weights"] != backbone.fingerprint("top")["weights"]
    assert same.fingerprint("top")["graph"] == backbone.fingerprint("top")["graph"]
    assert same.fingerprint(middle) == backbone.fingerprint(middle)


def test_contract_survives_saving(backbone, tmp_path):
    pixels = random_images(backbone.image_size)
    extractor = backbone.extractor(["top"])
    extractor.save(tmp_path / "extractor.keras")
    backbone.model.save_weights(tmp_path / "b.weights.h5")

    loaded = keras.models.load_model(tmp_path / "extractor.keras")
    restored = load_backbone(
        BackboneConfig(name=backbone.name, weights=str(tmp_path / "b.weights.h5"), seed=1),
        backbone.image_size,
    )

    assert relative_error(loaded(pixels), extractor(pixels)) < 1e-5
    assert restored.fingerprint("top") == backbone.fingerprint("top")


# The table, every row


def keras_module(name: str):
    builder = getattr(keras.applications, BACKBONES[name].builder)
    return importlib.import_module(builder.__module__)


@pytest.mark.parametrize("name", KERAS_NAMES)
def test_table_has_the_default_size_of_keras(name, monkeypatch):
    sizes = []

    class AskedError(Exception):
        pass

    def note_size(input_shape, default_size, **_):
        sizes.append(default_size)
        raise AskedError

    module = keras_module(name)
    monkeypatch.setattr(module.imagenet_utils, "obtain_input_shape", note_size)
    with pytest.raises(AskedError):
        getattr(keras.applications, BACKBONES[name].builder)(weights=None)

    assert sizes == [BACKBONES[name].image_size]


@pytest.mark.parametrize("name", KERAS_NAMES)
def test_table_preprocesses_as_keras_does(name):
    pixels = random_images(4, num_images=2)
    expected = keras_module(name).preprocess_input(pixels.astype("float32"))

    received = Preprocessing(BACKBONES[name].preprocessing)(pixels)

    np.testing.assert_allclose(received, expected, atol=2e-5)


def test_table_lists_all_of_keras_applications():
    builders = {
        name for name in dir(keras.applications) if name[0].isupper() and name != "Functional"
    }

    assert {BACKBONES[name].builder for name in KERAS_NAMES} == builders


def test_table_is_listed_without_tensorflow():
    code = (
        "import sys; from headstart.tasks.backbone_table import BACKBONES; "
        "print(len(BACKBONES), 'tensorflow' in sys.modules, 'keras' in sys.modules)"
    )
    listing = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert listing.stdout.split() == [str(len(BACKBONES)), "False", "False"]


def test_default_backbone_is_offline_and_first():
    first = next(iter(BACKBONES.values()))

    assert first.name == BackboneConfig().name
    assert first.offline
