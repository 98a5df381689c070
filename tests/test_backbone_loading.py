"""Loading backbones: what is given, what is refused, and what a loaded backbone promises."""

import random
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from headstart.config import BackboneConfig
from headstart.errors import BackboneError
from headstart.tasks.backbones import builders as backbone_builders
from headstart.tasks.backbones.backbone import Backbone, load_backbone

# Keras saves a variable with np.array(variable), which NumPy 2 warns about.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)


def load(name: str, weights: str = "random", image_size: int | None = 32, **fields) -> Backbone:
    return load_backbone(BackboneConfig(name=name, weights=weights, **fields), image_size)


def load_file(path, image_size: int | None = None, **fields) -> Backbone:
    return load_backbone(BackboneConfig(name=str(path), **fields), image_size)


def small_network(size: int | None = 16, classes: int | None = None, pool: bool = False):
    images = keras.Input((size, size, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", name="first")(images)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.ReLU(name="relu")(x)
    x = keras.layers.Conv2D(6, 3, strides=2, name="second")(x)
    if pool or classes:
        x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    if classes:
        x = keras.layers.Dense(classes, activation="softmax", name="probabilities")(x)
    return keras.Model(images, x)


def adapted_network(size: int | None = 16, nested: bool = False):
    """Normalise in the middle, with adapted statistics: the layer computes with constants."""
    images = keras.Input((size, size, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", name="first")(images)
    statistics = keras.layers.Normalization(name="statistics")
    statistics.adapt(np.random.default_rng(1).normal(40, 90, (8, 16, 16, 4)))
    if nested:
        inner = keras.Input((size, size, 4))
        x = keras.Model(inner, statistics(inner), name="inner")(x)
    else:
        x = statistics(x)
    x = keras.layers.Conv2D(6, 3, strides=2, name="second")(x)
    return keras.Model(images, keras.layers.GlobalAveragePooling2D(name="pool")(x))


def save(model, folder):
    path = folder / "net.keras"
    model.save(path)
    return path


def pixels(size: int, num_images: int = 2) -> np.ndarray:
    shape = (num_images, size, size, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(scope="module")
def lite0() -> Backbone:
    return load("efficientnet_lite0", "pretrained", image_size=None)


@pytest.fixture
def custom(tmp_path) -> Backbone:
    return load_file(save(small_network(pool=True), tmp_path))


# The default backbone


def test_default_backbone_is_pretrained_and_takes_its_own_size(lite0):
    assert lite0.image_size == 224
    assert lite0.preprocessing.mode == "lite"
    assert lite0.cuts[-1].activation_shape == (1280,)
    assert (
        lite0.fingerprint("top")["weights"]
        != load("efficientnet_lite0", image_size=224).fingerprint("top")["weights"]
    )


def test_classifier_shares_its_features_with_the_backbone(lite0):
    images = pixels(224, 1)
    classifier = lite0.classifier()
    logits = np.asarray(classifier(images))
    dense = classifier.layers[-1].get_layer("logits")

    features = lite0.extractor(["top"])(images)

    assert logits.shape == (1, 1000)
    np.testing.assert_allclose(dense(features), logits, atol=1e-4)


def test_backbone_without_its_own_classes_has_no_classifier(custom):
    assert custom.classifier() is None
    assert load("efficientnet_lite0").classifier() is None


def test_extractor_can_be_frozen_into_a_graph_of_constants(lite0):
    extractor = lite0.extractor(["block5c_add", "top"])
    images = tf.constant(pixels(224))
    traced = tf.function(extractor).get_concrete_function(tf.TensorSpec(images.shape, tf.uint8))

    frozen = convert_variables_to_constants_v2(traced)

    assert not frozen.variables
    for received, expected in zip(frozen(images), extractor(images), strict=True):
        np.testing.assert_allclose(received, expected, atol=1e-4, rtol=1e-4)


# Random weights


def test_equal_seeds_give_equal_weights_and_others_do_not():
    first, again, other = (
        load("mobilenet_v2", seed=seed).fingerprint("top")["weights"] for seed in (3, 3, 4)
    )

    assert first == again
    assert first != other


def test_building_leaves_the_programs_random_numbers_alone():
    random.seed(11)
    expected = random.random()
    random.seed(11)

    load("efficientnet_lite0", seed=5)

    assert random.random() == expected


def test_what_only_training_reads_is_in_the_training_fingerprint_alone(tmp_path):
    def load_with(**options):
        keras.utils.set_random_seed(0)
        images = keras.Input((8, 8, 3))
        inner = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 3, **options)])
        return load_file(save(keras.Model(images, inner(images)), tmp_path))

    plain, again = load_with(), load_with()
    penalised = load_with(kernel_regularizer=keras.regularizers.L2(0.1))
    harder = load_with(kernel_regularizer=keras.regularizers.L2(0.2))
    bounded = load_with(kernel_constraint=keras.constraints.NonNeg())

    assert again.training_fingerprint() == plain.training_fingerprint()
    assert plain.fingerprint("top") == penalised.fingerprint("top") == bounded.fingerprint("top")
    digests = [b.training_fingerprint()["penalties"] for b in (plain, penalised, harder, bounded)]
    assert len(set(digests)) == 4


def test_cut_names_do_not_depend_on_what_was_built_before():
    first = load("mobilenet_v3_small")
    keras.layers.Activation("relu")
    second = load("mobilenet_v3_small")
    code = (
        "from headstart.config import BackboneConfig\n"
        "from headstart.tasks.backbones.backbone import load_backbone\n"
        "config = BackboneConfig(name='mobilenet_v3_small', weights='random')\n"
        "print(*(cut.name for cut in load_backbone(config, 32).cuts))"
    )
    fresh = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    names = [cut.name for cut in first.cuts]
    assert [cut.name for cut in second.cuts] == names
    assert fresh.stdout.split() == names


# Cuts


def test_unknown_cut_is_refused_with_the_closest_names(custom):
    with pytest.raises(BackboneError, match="'secnd'; did you mean second") as caught:
        custom.resolve_cut("secnd")

    assert "headstart cuts" in caught.value.next_step


def test_top_is_also_known_by_its_layers_name(custom):
    assert custom.resolve_cut("pool") == custom.resolve_cut("top")


def test_extractor_of_no_cut_is_refused(custom):
    with pytest.raises(BackboneError, match="at least one cut"):
        custom.extractor([])


# Tails


def test_tail_trains_without_touching_the_backbone(custom):
    before = custom.fingerprint("top")
    tail = custom.tail("first")

    tail.compile("sgd", "mse")
    tail.fit(np.ones((4, 16, 16, 4), "float32"), np.ones((4, 6), "float32"), verbose=0)

    assert custom.fingerprint("top") == before
    kernel = custom.model.get_layer("second").kernel
    assert not np.allclose(tail.get_layer("second").kernel, kernel)


def test_tail_keeps_the_statistics_of_batch_normalisation(custom):
    tail = custom.tail("first")
    statistics = [np.array(weight) for weight in tail.get_layer("norm").weights]

    tail.compile("sgd", "mse")
    tail.fit(np.full((4, 16, 16, 4), 9, "float32"), np.ones((4, 6), "float32"), verbose=0)

    for weight, value in zip(tail.get_layer("norm").weights, statistics, strict=True):
        np.testing.assert_array_equal(weight, value)
    assert tail.get_layer("norm").trainable_weights == []


@pytest.mark.parametrize("nested", [False, True])
def test_tail_normalises_with_the_adapted_statistics(tmp_path, nested):
    model = adapted_network(nested=nested)
    backbone = load_file(save(model, tmp_path))
    activation = backbone.extractor(["first"])(pixels(16))

    received = backbone.tail("first")(activation)

    expected = model(pixels(16).astype("float32"))
    np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-4)


def test_tail_updates_the_statistics_when_asked(custom):
    tail = custom.tail("first", batch_norm_training=True)
    mean = np.array(tail.get_layer("norm").moving_mean)

    tail(np.full((4, 16, 16, 4), 9, "float32"), training=True)

    assert not np.allclose(tail.get_layer("norm").moving_mean, mean)


def test_tails_are_copies_of_their_own(custom):
    first, second = custom.tail("first"), custom.tail("first")
    first.get_layer("second").kernel.assign(first.get_layer("second").kernel * 0)

    assert np.abs(second.get_layer("second").kernel).max() > 0


def test_tail_of_the_top_is_the_identity(custom):
    features = np.arange(12, dtype="float32").reshape(2, 6)

    np.testing.assert_array_equal(custom.tail("top")(features), features)


def test_tail_loads_without_headstart(custom, tmp_path):
    custom.tail("first").save(tmp_path / "tail.keras")
    activation = np.random.default_rng(0).normal(size=(2, 16, 16, 4)).astype("float32")

    loaded = keras.models.load_model(tmp_path / "tail.keras")

    np.testing.assert_array_equal(
        loaded(activation, training=True), custom.tail("first")(activation)
    )


# Fingerprints


def test_fingerprint_ignores_names_but_not_structure_or_input(tmp_path):
    def network(name: str, strides: int):
        images = keras.Input((16, 16, 3))
        conv = keras.layers.Conv2D(2, 3, strides=strides, kernel_initializer="ones", name=name)
        return keras.Model(images, keras.layers.GlobalAveragePooling2D()(conv(images)))

    plain = load_file(save(network("a", 1), tmp_path)).fingerprint("top")
    renamed = load_file(save(network("b", 1), tmp_path)).fingerprint("top")
    strided = load_file(save(network("a", 2), tmp_path)).fingerprint("top")
    scaled = load_file(save(network("a", 1), tmp_path), preprocessing="tf").fingerprint("top")

    assert renamed == plain
    assert strided["graph"] != plain["graph"]
    assert strided["weights"] == plain["weights"]
    assert scaled == {**plain, "preprocessing": "tf"}


def test_fingerprint_tells_how_branches_are_joined(tmp_path):
    def network(swapped: bool):
        images = keras.Input((16, 16, 3))
        branches = [
            keras.layers.Conv2D(2, 1, kernel_initializer=kind)(images) for kind in ("ones", "zeros")
        ]
        joined = keras.layers.Subtract()(branches[::-1] if swapped else branches)
        return keras.Model(images, keras.layers.GlobalAveragePooling2D()(joined))

    plain, swapped = (
        load_file(save(network(swap), tmp_path)).fingerprint("top") for swap in (False, True)
    )

    assert plain != swapped


# Files of the user's own


def test_feature_map_is_averaged_and_said_so(tmp_path):
    backbone = load_file(save(small_network(), tmp_path))

    assert backbone.cuts[-1].activation_shape == (6,)
    assert [cut.name for cut in backbone.cuts] == ["first", "norm", "relu", "second", "top"]
    assert "average over all positions" in backbone.notes[0]
    assert backbone.preprocessing.mode == "none"


@pytest.mark.parametrize("separate", [False, True])
def test_classifiers_last_layer_is_left_out_and_said_so(tmp_path, separate):
    model = small_network(classes=5)
    if separate:
        logits = keras.layers.Dense(5, name="probabilities")(model.layers[-2].output)
        model = keras.Model(model.inputs[0], keras.layers.Softmax()(logits))

    backbone = load_file(save(model, tmp_path))

    assert backbone.cuts[-1].layer == "pool"
    assert "its layer 'probabilities' is removed" in backbone.notes[0]


def test_network_that_ends_in_features_is_taken_as_it_is(custom):
    assert custom.notes == ()
    assert custom.cuts[-1].layer == "pool"


def test_sequential_model_is_cut_at_every_layer(tmp_path):
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            keras.layers.Conv2D(2, 3, name="a"),
            keras.layers.ReLU(name="b"),
            keras.layers.GlobalAveragePooling2D(name="c"),
        ]
    )

    assert [cut.name for cut in load_file(save(model, tmp_path)).cuts] == ["a", "b", "top"]


def test_nested_model_counts_as_one_layer_and_trains_in_the_tail(tmp_path):
    images = keras.Input((16, 16, 3))
    inner = small_network(pool=True)
    inner.name = "inner"
    model = keras.Model(images, inner(keras.layers.Rescaling(1 / 255, name="scale")(images)))
    backbone = load_file(save(model, tmp_path))
    activation, expected = backbone.extractor(["scale", "top"])(pixels(16))

    tail = backbone.tail("scale")

    assert [cut.name for cut in backbone.cuts] == ["scale", "top"]
    np.testing.assert_allclose(tail(activation, training=True), expected, atol=1e-5)
    assert len(tail.trainable_weights) == 4  # both kernels and biases


def test_size_that_a_file_leaves_open_is_chosen(tmp_path):
    path = save(small_network(size=None), tmp_path)

    assert load_file(path).image_size == 224
    backbone = load_file(path, image_size=20)
    assert backbone.resolve_cut("first").activation_shape == (20, 20, 4)
    expected = keras.models.load_model(path)(pixels(20).astype("float32"))
    received = backbone.extractor(["second"])(pixels(20))
    np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("nested", [False, True])
def test_file_of_open_size_normalises_with_its_adapted_statistics(tmp_path, nested):
    model = adapted_network(size=None, nested=nested)
    backbone = load_file(save(model, tmp_path), image_size=20)

    received = backbone.extractor(["top"])(pixels(20))

    expected = model(pixels(20).astype("float32"))
    np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-4)


def test_fingerprint_tells_what_a_normalisation_computes_with(tmp_path):
    backbone = load_file(save(adapted_network(), tmp_path))
    before = [backbone.fingerprint(cut)["weights"] for cut in ("first", "top")]
    statistics = backbone.model.get_layer("statistics")

    statistics.mean = statistics.mean + 1.0
    backbone._digests.clear()  # what a frozen network remembers of itself

    first, top = (backbone.fingerprint(cut)["weights"] for cut in ("first", "top"))
    assert first == before[0]
    assert top != before[1]


def test_size_that_contradicts_the_file_is_refused(tmp_path):
    with pytest.raises(BackboneError, match="16 x 16 pixels"):
        load_file(save(small_network(), tmp_path), image_size=32)


def test_lambda_layer_is_refused(tmp_path):
    images = keras.Input((16, 16, 3))
    model = keras.Model(images, keras.layers.Lambda(lambda x: x * 2)(images))

    with pytest.raises(BackboneError, match="Lambda and custom layers carry code"):
        load_file(save(model, tmp_path))


class Unregistered(keras.layers.Layer):
    def call(self, inputs):
        return inputs


def test_custom_layer_is_refused(tmp_path):
    images = keras.Input((16, 16, 3))

    with pytest.raises(BackboneError, match="not stock Keras layers"):
        load_file(save(keras.Model(images, Unregistered()(images)), tmp_path))


def test_several_inputs_or_outputs_are_refused(tmp_path):
    first, second = keras.Input((16, 16, 3)), keras.Input((16, 16, 3))
    model = keras.Model([first, second], [keras.layers.Add()([first, second]), first])

    with pytest.raises(BackboneError, match="2 inputs, 2 outputs"):
        load_file(save(model, tmp_path))


@pytest.mark.parametrize("shape", [(16, 16, 1), (16, 12, 3), (16,)])
def test_input_other_than_square_rgb_is_refused(tmp_path, shape):
    entry = keras.Input(shape)

    with pytest.raises(BackboneError, match="square RGB images"):
        load_file(save(keras.Model(entry, keras.layers.Flatten()(entry)), tmp_path))


def test_output_of_another_rank_is_refused(tmp_path):
    images = keras.Input((16, 16, 3))
    model = keras.Model(images, keras.layers.Reshape((256, 3))(images))

    with pytest.raises(BackboneError, match="an output of shape"):
        load_file(save(model, tmp_path))


def test_file_that_is_no_keras_file_is_refused(tmp_path):
    path = tmp_path / "net.keras"
    path.write_bytes(b"not a zip archive")

    with pytest.raises(BackboneError, match=r"net\.keras"):
        load_file(path)


def test_pickle_is_refused(tmp_path):
    path = tmp_path / "net.pkl"
    path.write_bytes(b"\x80\x04N.")

    with pytest.raises(BackboneError, match=r"a \.keras file or a SavedModel folder"):
        load_file(path)


def test_saved_model_is_cut_at_its_top(tmp_path):
    model = small_network(pool=True)
    model.export(tmp_path / "saved", verbose=False)

    backbone = load_file(tmp_path / "saved")

    assert [cut.name for cut in backbone.cuts] == ["top"]
    np.testing.assert_allclose(
        backbone.extractor(["top"])(pixels(16)), model(pixels(16).astype("float32")), rtol=1e-5
    )
    assert "top is its only cut" in backbone.notes[-1]


def test_fingerprint_of_a_saved_model_follows_its_bytes_and_not_its_place(tmp_path):
    model = small_network(pool=True)
    model.export(tmp_path / "saved", verbose=False)
    before = load_file(tmp_path / "saved").fingerprint("top")
    (tmp_path / "saved").rename(tmp_path / "moved")

    moved = load_file(tmp_path / "moved").fingerprint("top")
    model.get_layer("second").kernel.assign(model.get_layer("second").kernel + 1)
    model.export(tmp_path / "other", verbose=False)

    assert moved == before
    assert load_file(tmp_path / "other").fingerprint("top") != before


# What else is refused


def test_unknown_name_is_refused_with_the_closest_names():
    with pytest.raises(BackboneError, match="did you mean resnet50"):
        load("resnet_50")


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(BackboneError, match="does not exist"):
        load_file(tmp_path / "net.keras")


def test_weights_beside_a_file_are_refused(tmp_path):
    with pytest.raises(BackboneError, match="brings its own weights"):
        load_file(save(small_network(), tmp_path), weights="random")


@pytest.mark.parametrize("name", ["resnet50", "inception_v3", "efficientnet_lite0"])
def test_too_small_images_are_refused(name):
    with pytest.raises(BackboneError, match="image_size=16"):
        load(name, image_size=16)


def test_failed_download_names_the_ways_out(monkeypatch):
    def fail(**_):
        raise Exception("URL fetch failure on https://example.org: None -- not known")

    monkeypatch.setattr(backbone_builders.keras.applications, "ResNet50", fail)

    with pytest.raises(BackboneError, match="the download failed") as caught:
        load("resnet50", "pretrained")

    assert "efficientnet_lite0" in caught.value.next_step
    assert "internet connection" in caught.value.next_step
    assert ".weights.h5" in caught.value.next_step


def test_weights_of_another_network_are_refused(tmp_path):
    small_network().save_weights(tmp_path / "other.weights.h5")

    with pytest.raises(BackboneError, match=r"other\.weights\.h5"):
        load("mobilenet_v2", str(tmp_path / "other.weights.h5"))


def test_stored_weights_are_restored(tmp_path):
    path = tmp_path / "net.weights.h5"
    backbone = load("mobilenet_v3_small", seed=1)
    backbone.model.save_weights(path)

    assert load("mobilenet_v3_small", str(path)).fingerprint("top") == backbone.fingerprint("top")


def test_weights_that_are_no_file_are_refused():
    with pytest.raises(BackboneError, match="'imagnet', which does not exist"):
        load("mobilenet_v2", "imagnet")


def test_preprocessing_can_be_told(tmp_path):
    path = save(small_network(), tmp_path)

    assert load_file(path, preprocessing="torch").preprocessing.mode == "torch"
    assert load("resnet50", preprocessing="torch").preprocessing.mode == "torch"
    assert load("resnet50").preprocessing.mode == "caffe"
