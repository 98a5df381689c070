import keras
import pytest
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from headstart.tasks.backbones.cuts import Cut, find_cuts
from headstart.tasks.backbones.efficientnet_lite import build_efficientnet_lite
from headstart.tasks.backbones.flops import count_flops
from headstart.tasks.backbones.layer_graph import read_layer_graph


def cuts_of(model) -> tuple[Cut, ...]:
    return find_cuts(model, read_layer_graph(model))


def images(size: int = 8):
    return keras.Input((size, size, 3))


def residual_network():
    entry = images()
    stem = keras.layers.Conv2D(4, 3, padding="same", name="stem")(entry)
    branch = keras.layers.Conv2D(4, 3, padding="same", name="branch")(stem)
    branch = keras.layers.ReLU(name="branch_relu")(branch)
    total = keras.layers.Add(name="add")([stem, branch])
    last = keras.layers.Conv2D(8, 1, name="last")(total)
    return keras.Model(entry, keras.layers.GlobalAveragePooling2D(name="pool")(last))


def profiled_flops(model) -> int:
    """Count a model's FLOPs with TensorFlow's profiler."""
    spec = tf.TensorSpec((1, *model.input_shape[1:]))
    graph = convert_variables_to_constants_v2(tf.function(model).get_concrete_function(spec)).graph
    options = tf.compat.v1.profiler.ProfileOptionBuilder
    return tf.compat.v1.profiler.profile(
        graph, options=options(options.float_operation()).with_empty_output().build()
    ).total_float_ops


def test_cuts_are_the_tensors_all_paths_pass_through():
    assert [cut.name for cut in cuts_of(residual_network())] == ["stem", "add", "last", "top"]


def test_cut_at_a_layer_behind_a_skipping_branch_that_starts_at_the_input_is_found():
    entry = images()
    inner = keras.layers.Conv2D(3, 1, name="inner")(entry)
    joined = keras.layers.Add(name="join")([entry, inner])
    model = keras.Model(entry, keras.layers.GlobalAveragePooling2D()(joined))

    assert [cut.name for cut in cuts_of(model)] == ["join", "top"]


def test_every_boundary_of_a_chain_is_a_cut():
    model = keras.Sequential(
        [
            images(),
            keras.layers.Conv2D(2, 3, name="a"),
            keras.layers.ReLU(name="b"),
            keras.layers.GlobalAveragePooling2D(name="c"),
        ]
    )
    functional = keras.Model(model.inputs, model.outputs)

    assert [cut.name for cut in cuts_of(functional)] == ["a", "b", "top"]
    assert [cut.layer for cut in cuts_of(functional)] == ["a", "b", "c"]


def test_layer_called_twice_is_not_a_cut():
    entry = images()
    shared = keras.layers.Conv2D(3, 3, padding="same", name="shared")
    between = keras.layers.ReLU(name="between")(shared(entry))
    model = keras.Model(entry, keras.layers.GlobalAveragePooling2D()(shared(between)))

    cuts = cuts_of(model)

    assert [cut.name for cut in cuts] == ["between", "top"]
    assert cuts[0].flops_before == cuts[0].flops_after == 2 * 64 * 27 * 3


def test_layer_named_top_in_the_middle_does_not_hide_the_pooled_top():
    entry = images()
    x = keras.layers.Conv2D(3, 3, name="top")(entry)
    model = keras.Model(entry, keras.layers.GlobalAveragePooling2D(name="pool")(x))

    assert [(cut.name, cut.layer) for cut in cuts_of(model)] == [("top", "pool")]


def test_cut_at_a_bare_operation_is_found():
    entry = images()
    doubled = keras.layers.Conv2D(3, 1, name="conv")(entry) * 2.0
    model = keras.Model(entry, keras.layers.GlobalAveragePooling2D()(doubled))

    names = [cut.name for cut in cuts_of(model)]

    assert len(names) == 3
    assert names[1].startswith("multiply")


def test_cut_gives_shape_and_bytes_of_its_activation():
    add = cuts_of(residual_network())[1]

    assert add.activation_shape == (8, 8, 4)
    assert add.bytes_per_image("float16") == 8 * 8 * 4 * 2
    assert add.bytes_per_image("float32") == 8 * 8 * 4 * 4


def test_flops_before_and_after_add_up_to_the_whole():
    stem, branch, last = 2 * 64 * 27 * 4, 2 * 64 * 36 * 4, 2 * 64 * 4 * 8

    cuts = cuts_of(residual_network())

    assert [cut.flops_before for cut in cuts] == [
        stem,
        stem + branch,
        stem + branch + last,
        stem + branch + last,
    ]
    assert [cut.flops_after for cut in cuts] == [branch + last, last, 0, 0]


def test_backward_pass_leaves_out_the_gradient_of_the_cut():
    stem, add = cuts_of(residual_network())[:2]

    assert add.flops_backward_after == add.flops_after  # weights of `last` alone
    branch, last = 2 * 64 * 36 * 4, 2 * 64 * 4 * 8
    assert stem.flops_backward_after == branch + 2 * last


def test_backward_pass_takes_batch_normalisation_as_frozen():
    entry = images()
    x = keras.layers.Conv2D(4, 1, name="stem")(entry)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Conv2D(8, 1, name="last")(x)
    model = keras.Model(entry, keras.layers.GlobalAveragePooling2D()(x))

    stem = cuts_of(model)[0]

    assert stem.flops_backward_after == stem.flops_after == 2 * 64 * 4 * 8


def test_speedup_limit_follows_its_definition():
    cut = Cut("x", "x", (1,), 10, flops_before=1000, flops_after=100, flops_backward_after=150)

    head = 3 * 2 * 10 * 10
    assert cut.speedup_limit == (1000 + 100 + 150 + head) / (100 + 150 + head)
    assert cut.speedup_limit_for(1) == (1000 + 250 + 60) / (250 + 60)


def test_speedup_limit_at_the_top_leaves_the_head_only():
    cut = Cut("top", "pool", (10,), 10, flops_before=4000, flops_after=0, flops_backward_after=0)

    assert cut.speedup_limit == (4000 + 400) / 400


def test_resnet50_before_its_last_block_has_a_limit_of_about_seven():
    model = keras.applications.ResNet50(
        include_top=False, pooling="avg", weights=None, input_shape=(224, 224, 3)
    )

    cuts = {cut.name: cut for cut in cuts_of(model)}

    assert cuts["top"].flops_before == pytest.approx(7.71e9, rel=0.001)
    assert cuts["conv5_block2_out"].activation_shape == (7, 7, 2048)
    assert cuts["conv5_block2_out"].speedup_limit == pytest.approx(7.0, abs=0.05)


@pytest.mark.parametrize(
    ("build", "expected_flops"),
    [
        (lambda: keras.applications.ResNet50(weights=None), 7.75e9),
        (lambda: build_efficientnet_lite("lite0", 224, classifier=True), 0.77e9),
    ],
    ids=["resnet50", "efficientnet_lite0"],
)
def test_flops_agree_with_tensorflows_profiler(build, expected_flops):
    model = build()

    counted = count_flops(model, [model.input_shape])

    # The profiler adds biases, residual sums and pooling.
    assert counted == pytest.approx(profiled_flops(model), rel=0.02)
    assert counted == pytest.approx(expected_flops, rel=0.01)


@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.Conv2D(6, 3, strides=2, padding="same", use_bias=False),
        keras.layers.Conv2D(4, 3, dilation_rate=2, use_bias=False),
        keras.layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False),
        keras.layers.SeparableConv2D(5, 3, depth_multiplier=2, use_bias=False),
        keras.layers.Conv2DTranspose(6, 3, strides=2, padding="same", use_bias=False),
        keras.layers.Dense(5, use_bias=False),
    ],
    ids=["conv", "dilated", "depthwise", "separable", "transpose", "dense"],
)
def test_formula_of_each_layer_agrees_with_tensorflows_profiler(layer):
    entry = keras.Input((10, 10, 4))
    model = keras.Model(entry, layer(entry))

    assert count_flops(layer, [(None, 10, 10, 4)]) == profiled_flops(model)


def test_grouped_convolution_sees_its_own_channels_only():
    # The profiler does not look into the compiled function that Keras makes of it.
    layer = keras.layers.Conv2D(8, 3, groups=4)
    layer(keras.Input((10, 10, 12)))

    assert count_flops(layer, [(None, 10, 10, 12)]) == 2 * (8 * 8 * 8) * (3 * 3 * 3)


def test_layer_without_a_formula_is_profiled():
    layer = keras.layers.MultiHeadAttention(num_heads=2, key_dim=4)
    entry = keras.Input((6, 8))
    layer(entry, entry)

    flops = count_flops(layer, [(None, 6, 8), (None, 6, 8)])

    projections = 4 * 2 * 6 * 8 * 8
    products = 2 * 2 * 2 * 6 * 6 * 4
    assert flops == pytest.approx(projections + products, rel=0.3)  # and softmax and biases


def test_nested_model_counts_as_the_sum_of_its_layers():
    inner = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 1, name="inner")])
    entry = images()
    model = keras.Model(entry, keras.layers.GlobalAveragePooling2D()(inner(entry)))

    assert cuts_of(model)[0].flops_before == 2 * 64 * 3 * 4
