"""The contract of every backbone of the table.

Covered: for every row of the table, that Keras has the builder, and that preprocessing and
default input size are Keras' own (`test_table_*`; nothing is built, so the largest networks are
included). For one network of each family (`FAMILIES`), at the smallest input it takes and with
random weights: the whole contract (cuts, features, tails, fingerprint, saving).
"""

import copy
import importlib
import subprocess
import sys

import keras
import numpy as np
import pytest

from headstart.config import BackboneConfig
from headstart.tasks.backbones.backbone import Backbone, load_backbone
from headstart.tasks.backbones.preprocessing import Preprocessing
from headstart.tasks.backbones.table import BACKBONES

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
    "resnet9": 32,
}
KERAS_NAMES = [
    name
    for name, entry in BACKBONES.items()
    if entry.family not in ("efficientnet_lite", "classic")
]


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
    """Name the cut that divides the arithmetic most evenly."""
    return min(backbone.cuts, key=lambda cut: abs(cut.flops_before - cut.flops_after)).name


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

    assert relative_error(tail(activation), expected) < 1e-4
    assert len(tail.trainable_weights) > 0


def test_contract_fingerprint_follows_the_weights_before_the_cut_only(backbone):
    again = random_backbone(backbone.name)
    middle = middle_cut(backbone)
    at_middle, at_top = backbone.fingerprint(middle), backbone.fingerprint("top")

    assert again.fingerprint("top") == at_top
    assert [cut.name for cut in again.cuts] == [cut.name for cut in backbone.cuts]
    last_kernel = [weight for weight in again.model.weights if len(weight.shape) > 1][-1]
    last_kernel.assign(last_kernel + 1.0)
    changed = rewrapped(again).fingerprint("top")  # a frozen network remembers its own
    assert changed["weights"] != at_top["weights"]
    assert changed["graph"] == at_top["graph"] != at_middle["graph"]
    assert rewrapped(again).fingerprint(middle) == at_middle


def rewrapped(backbone):
    """Return the same network anew, with nothing remembered of its weights."""
    fresh = copy.copy(backbone)
    fresh._digests = {}
    return fresh


def test_contract_extractor_loads_without_headstart(backbone, tmp_path):
    pixels = random_images(backbone.image_size)
    extractor = backbone.extractor([middle_cut(backbone)])
    extractor.save(tmp_path / "extractor.keras")

    loaded = keras.models.load_model(tmp_path / "extractor.keras")

    assert relative_error(loaded(pixels), extractor(pixels)) < 1e-5


# The table, every row


def keras_module(name: str):
    builder = getattr(keras.applications, BACKBONES[name].builder)
    return importlib.import_module(builder.__module__)


# MobileNetV3 takes any size and has no default; its weights were trained at 224.
@pytest.mark.parametrize("name", [name for name in KERAS_NAMES if "mobilenet_v3" not in name])
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
        "import sys; from headstart.tasks.backbones.table import BACKBONES; "
        "print(len(BACKBONES), 'tensorflow' in sys.modules, 'keras' in sys.modules)"
    )
    listing = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert listing.stdout.split() == [str(len(BACKBONES)), "False", "False"]


def test_default_backbone_is_offline_and_first():
    first = next(iter(BACKBONES.values()))

    assert first.name == BackboneConfig().name
    assert first.pretrained == "package"
