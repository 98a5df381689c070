"""The parts of fine-tuning: rates of groups, statistics that stay, networks, rungs, charts."""

import hashlib
import io
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from headstart.config import (
    BackboneConfig,
    CompareConfig,
    FinetuneConfig,
    HeadConfig,
    TransferabilityConfig,
    TuningConfig,
    build_config,
)
from headstart.errors import BackboneError, ConfigError, TrainingError
from headstart.tasks.backbones.backbone import Backbone, load_backbone
from headstart.tasks.backbones.cuts import PIXELS
from headstart.tasks.bottlenecks.features import extractor_to
from headstart.tasks.bottlenecks.rows import LabelledRows
from headstart.tasks.evaluation.paired import mcnemar_p
from headstart.tasks.finetuning.charts import Point, pareto_front
from headstart.tasks.finetuning.group_rates import make_group_optimizer, warm_up_then_cosine
from headstart.tasks.finetuning.kernels import KernelChange, first_convolutions, kernels_png
from headstart.tasks.finetuning.ladder import Rung, estimate_epoch_s, plan_cuts
from headstart.tasks.finetuning.memory import start_measuring
from headstart.tasks.finetuning.network import (
    Network,
    copy_segment,
    extend,
    falling,
    hold_statistics,
    stock_layers,
)
from headstart.tasks.finetuning.page import Page, markdown_page, write_study_page
from headstart.tasks.finetuning.rungs import plan_rungs, spread_cuts
from headstart.tasks.finetuning.studies import Line, block_cut, headline, order_sentence
from headstart.tasks.finetuning.training import BestEpoch, require_validation, train_network
from headstart.tasks.finetuning.trial import Trial, build_network, intervals_of_means, step_flops
from headstart.tasks.head.training import build_head
from headstart.tasks.runs.pages import Section
from headstart.tasks.store.artifacts import Store
from headstart.tasks.store.records import RowCollection, RowId

NUM_CLASSES = 3
SIDE = 16


def test_the_defaults_are_those_that_the_documentation_tells_of() -> None:
    text = (Path(__file__).parents[1] / "docs" / "finetuning.md").read_text(encoding="utf-8")
    told: dict[str, str] = {}
    for line in (
        text.partition("Settings of a rung's training")[2]
        .partition("\n\nThe rate of each group")[0]
        .splitlines()
    ):
        _, names, values, *_ = [*line.split("|"), "", ""]
        if "`" in names:
            told |= zip(names.replace("`", "").split(","), values.split(","), strict=True)
    defaults = TuningConfig().model_dump()
    found = {name.strip(): type(defaults[name.strip()])(told[name].strip()) for name in told}
    assert found == {name: defaults[name] for name in found}
    assert found.keys() == defaults.keys() - {"batch_size", "momentum"}


def normalised_network() -> Any:
    """Build a network with batch normalisation and the cuts of two blocks."""
    keras.utils.set_random_seed(3)
    images = keras.Input((SIDE, SIDE, 3), name="images")
    x = keras.layers.Rescaling(1 / 64, name="rescaling")(images)
    for name, filters in (("one", 6), ("two", 8)):
        x = keras.layers.Conv2D(filters, 3, strides=2, name=f"{name}_conv")(x)
        x = keras.layers.BatchNormalization(name=f"{name}_bn")(x)
        x = keras.layers.Activation("relu", name=f"{name}_relu")(x)
    return keras.Model(images, keras.layers.GlobalAveragePooling2D(name="pool")(x))


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    path = tmp_path_factory.mktemp("net") / "net.keras"
    model = normalised_network()
    for layer in model.layers:  # as if it had been trained: statistics of their own
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_mean.assign(np.linspace(-0.2, 0.3, layer.moving_mean.shape[0]))
            layer.moving_variance.assign(np.linspace(0.5, 2.0, layer.moving_variance.shape[0]))
    model.save(path)
    return load_backbone(BackboneConfig(name=str(path)))


def pictures(num_images: int = 12) -> Any:
    return np.random.default_rng(0).integers(0, 256, (num_images, SIDE, SIDE, 3), np.uint8)


def make_rows(folder: Path, tensors: Any, labels: Any) -> LabelledRows:
    """Write plain rows [n, *shape] to a store."""
    ids = [hashlib.sha256(bytes([number])).hexdigest() for number in range(len(tensors))]
    collection = RowCollection(
        Store(folder), "bottlenecks", "rows", tensors.shape[1:], str(tensors.dtype)
    )
    with collection.lock(), collection.writer(len(tensors)) as writer:
        for image, tensor in zip(ids, tensors, strict=True):
            writer.write(RowId(image, 0), tensor)
    reader = collection.select([RowId(image, 0) for image in ids])
    positions = np.arange(len(tensors), dtype=np.int64)[:, None]
    return LabelledRows((reader,), positions, np.asarray(labels, np.int32))


def one_step(kind: Any, rates: list[float], gradient_factor: float = 1.0) -> list[float]:
    """Return how far one step moves two variables that begin at 1, with gradients of 0.5."""
    variables = [keras.Variable(1.0, name=name) for name in ("kernel", "kernel")]
    optimizer = make_group_optimizer(kind, 0.1, rates, variables, 0.0, 0.0, None)
    gradients = [tf.constant(0.5), tf.constant(0.5 * gradient_factor)]
    optimizer.apply(gradients, variables)
    return [1.0 - float(variable) for variable in variables]


class TestGroupRates:
    @pytest.mark.parametrize("kind", ["adamw", "sgd"])
    def test_a_rate_scales_the_step(self, kind: Any) -> None:
        full, tenth = one_step(kind, [1.0, 0.1])
        assert tenth == pytest.approx(full / 10, rel=1e-4)

    def test_scaling_the_gradient_instead_would_do_nothing_under_adam(self) -> None:
        full, same = one_step("adamw", [1.0, 1.0], gradient_factor=0.1)
        assert same == pytest.approx(full, rel=1e-4)

    def test_adams_state_is_that_of_the_unscaled_gradient(self) -> None:
        variables = [keras.Variable([1.0, 2.0], name="kernel") for _ in range(2)]
        optimizer = make_group_optimizer("adamw", 0.1, [1.0, 0.01], variables, 0.0, 0.0, None)
        for step in range(3):
            gradient = tf.constant([0.3, -0.1 * step])
            optimizer.apply([gradient, gradient], variables)
        velocities = [v for v in optimizer.variables if "velocity" in v.path]
        np.testing.assert_array_equal(*velocities)

    def test_decay_follows_the_rate_and_spares_what_is_no_kernel(self) -> None:
        names = ("kernel", "kernel", "bias")
        variables = [keras.Variable(1.0, name=name) for name in names]
        optimizer = make_group_optimizer("sgd", 0.1, [1.0, 0.5, 1.0], variables, 0.2, 0.0, None)
        optimizer.apply([tf.constant(0.0)] * 3, variables)
        np.testing.assert_allclose([float(v) for v in variables], [0.98, 0.99, 1.0], rtol=1e-6)

    def test_the_gradient_is_clipped_over_all_groups(self) -> None:
        variables = [keras.Variable(0.0, name="kernel") for _ in range(2)]
        optimizer = make_group_optimizer("sgd", 1.0, [1.0, 1.0], variables, 0.0, 0.0, 1.0)
        optimizer.apply([tf.constant(3.0), tf.constant(4.0)], variables)
        np.testing.assert_allclose([-float(v) for v in variables], [0.6, 0.8], rtol=1e-6)

    def test_the_rate_rises_in_a_straight_line_and_falls_to_nothing(self) -> None:
        rate = warm_up_then_cosine(0.4, 10, 0.4)
        values = [float(rate(step)) for step in range(11)]
        np.testing.assert_allclose(values[:5], [0.0, 0.1, 0.2, 0.3, 0.4], rtol=1e-5)
        assert sorted(values[4:], reverse=True) == values[4:]
        assert values[10] == pytest.approx(0.0, abs=1e-7)
        assert float(warm_up_then_cosine(0.4, 10, 0.0)(0)) == pytest.approx(0.4)


class TestNetworks:
    def test_a_longer_network_computes_what_backbone_and_head_do(self, backbone: Backbone) -> None:
        head = build_head(HeadConfig(dropout=0.0), (8,), NUM_CLASSES)
        images = pictures()
        features = backbone.extractor(["top"])(images)
        expected = head(features)
        one = extend(head, (("logits",),), backbone, "one_relu", "top")
        rows = backbone.extractor(["one_relu"])(images)
        np.testing.assert_allclose(one.model(rows), expected, rtol=1e-4, atol=1e-5)
        whole = extend(one.model, one.groups, backbone, PIXELS, "one_relu")
        np.testing.assert_allclose(
            whole.model(images.astype(np.float32)), expected, rtol=1e-4, atol=1e-5
        )
        assert whole.groups == (("logits",), ("two_conv", "two_bn"), ("one_conv", "one_bn"))

    def test_rates_fall_from_group_to_group(self, backbone: Backbone) -> None:
        head = build_head(HeadConfig(), (8,), NUM_CLASSES)
        network = extend(head, (("logits",),), backbone, PIXELS, "top")
        rates = network.rates(falling(2, 4.0))
        by_layer = {
            variable.path.split("/")[-2]: rate
            for variable, rate in zip(network.model.trainable_variables, rates, strict=True)
        }
        assert by_layer["logits"] == 1.0
        assert by_layer["one_conv"] == by_layer["two_bn"] == 0.25

    def test_new_weights_are_drawn_from_the_seed(self, backbone: Backbone) -> None:
        def weights(seed: int | None) -> Any:
            head = build_head(HeadConfig(), (8,), NUM_CLASSES)
            network = extend(head, (("logits",),), backbone, PIXELS, "top", seed)
            return np.array(network.model.get_layer("one_conv").kernel)

        np.testing.assert_array_equal(weights(1), weights(1))
        assert np.abs(weights(1) - weights(2)).max() > 0.01
        assert np.abs(weights(1) - weights(None)).max() > 0.01

    def test_statistics_of_new_weights_settle_within_a_short_training(
        self, backbone: Backbone
    ) -> None:
        def momentum(seed: int | None) -> float:
            head = build_head(HeadConfig(), (8,), NUM_CLASSES)
            network = extend(head, (("logits",),), backbone, PIXELS, "top", seed)
            return float(network.model.get_layer("one_bn").momentum)

        assert momentum(1) ** 50 < 0.01  # of what they began with is left after 50 steps
        assert momentum(None) == backbone.model.get_layer("one_bn").momentum

    def test_preprocessing_is_part_of_what_begins_at_pixels(self) -> None:
        model = keras.Sequential([keras.Input((SIDE, SIDE, 3)), keras.layers.Flatten()])
        functional = keras.Model(model.inputs[0], model.outputs[0])
        from headstart.tasks.backbones.preprocessing import Preprocessing

        backbone = Backbone("plain", SIDE, Preprocessing("caffe"), functional)
        images = pictures(2).astype(np.float32)
        expected = backbone.extractor(["top"])(images)
        np.testing.assert_allclose(copy_segment(backbone, PIXELS, "top")(images), expected)
        np.testing.assert_array_equal(extractor_to(backbone, PIXELS)(images), images)


class TestStatistics:
    def fit(self, model: Any, backbone: Backbone) -> Any:
        """Train a step on rows that the stored statistics do not fit."""
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        rows = 5.0 + backbone.extractor(["one_relu"])(pictures()).numpy()
        model.fit(rows, np.arange(12) % NUM_CLASSES, batch_size=4, epochs=1, verbose=0)
        return model.get_layer("two_bn")

    def network(self, backbone: Backbone) -> Any:
        head = build_head(HeadConfig(dropout=0.0), (8,), NUM_CLASSES)
        return extend(head, (("logits",),), backbone, "one_relu", "top").model

    def test_they_stay_while_scale_and_offset_train(self, backbone: Backbone) -> None:
        before = backbone.model.get_layer("two_bn").get_weights()
        trained = self.fit(hold_statistics(self.network(backbone)), backbone)
        gamma, beta, mean, variance = trained.get_weights()
        np.testing.assert_array_equal([mean, variance], before[2:])
        assert np.abs(gamma - before[0]).max() > 1e-6
        assert np.abs(beta - before[1]).max() > 1e-6

    def test_keras_own_layer_would_move_them_whatever_the_graph_says(
        self, backbone: Backbone
    ) -> None:
        before = backbone.model.get_layer("two_bn").get_weights()
        trained = self.fit(self.network(backbone), backbone)
        assert np.abs(trained.get_weights()[2] - before[2]).max() > 1e-3

    def test_the_loss_is_that_of_the_stored_statistics(self, backbone: Backbone) -> None:
        model = hold_statistics(self.network(backbone))
        rows = backbone.extractor(["one_relu"])(pictures())
        np.testing.assert_array_equal(model(rows, training=True), model(rows, training=False))

    def test_what_is_saved_is_stock_keras_and_computes_the_same(
        self, backbone: Backbone, tmp_path: Path
    ) -> None:
        model = hold_statistics(self.network(backbone))
        self.fit(model, backbone)
        stock = stock_layers(model)
        assert {type(layer).__module__.split(".")[0] for layer in stock.layers} == {"keras"}
        stock.save(tmp_path / "head.keras")
        read = keras.models.load_model(tmp_path / "head.keras", compile=False)
        rows = backbone.extractor(["one_relu"])(pictures())
        np.testing.assert_allclose(read(rows), model(rows), rtol=1e-6)


class TestInputStatistics:
    """Keras' Normalization computes with constants that it makes of its weights."""

    def network(self, tmp_path: Path) -> tuple[Any, Any]:
        """Return a backbone with an adapted Normalization, and the model it was read from."""
        plain = normalised_network()
        images = keras.Input((SIDE, SIDE, 3), name="images")
        statistics = keras.layers.Normalization(name="statistics")
        statistics.adapt(pictures())
        model = keras.Model(images, plain.call(statistics(images)))  # not nested
        model.save(tmp_path / "adapted.keras")
        return load_backbone(BackboneConfig(name=str(tmp_path / "adapted.keras"))), model

    def test_what_trains_end_to_end_is_what_was_kept_and_what_is_saved(
        self, tmp_path: Path
    ) -> None:
        backbone, original = self.network(tmp_path)
        head = build_head(HeadConfig(dropout=0.0), (8,), NUM_CLASSES)
        images = pictures().astype(np.float32)
        expected = head(original(images))
        network = extend(head, (("logits",),), backbone, PIXELS, "top")
        held = hold_statistics(network.model)
        stock_layers(held).save(tmp_path / "head.keras")
        read = keras.models.load_model(tmp_path / "head.keras", compile=False)
        for model in (network.model, held, stock_layers(held), read):
            np.testing.assert_allclose(model(images), expected, rtol=1e-4, atol=1e-5)


class TestTraining:
    def test_a_cached_rung_follows_the_curve_of_the_whole_network_with_a_frozen_prefix(
        self, backbone: Backbone, tmp_path: Path
    ) -> None:
        """Float16 rows, read from files, against pixels through the frozen layers in Keras."""
        images, labels = pictures(24), np.arange(24) % NUM_CLASSES
        extractor = backbone.extractor(["one_relu"])
        cached = make_rows(tmp_path / "a", extractor(images).numpy().astype(np.float16), labels)
        pixels = make_rows(tmp_path / "b", images, labels)
        tuning = TuningConfig(
            epochs=4, batch_size=8, optimizer="adamw", learning_rate=0.01, patience=0
        )
        head_config = HeadConfig(dropout=0.2, seed=5)
        histories = []
        for rows, is_whole in ((cached, False), (pixels, True)):
            head = build_head(head_config, (8,), NUM_CLASSES)
            network = extend(head, (("logits",),), backbone, "one_relu", "top")
            if is_whole:
                network = behind(extractor, network)
            folder = tmp_path / f"log-{is_whole}"
            trained = train_network(
                network, [1.0, 0.3], rows, rows, tuning, head_config, NUM_CLASSES, folder
            )
            histories.append([(one.train_loss, one.val_loss) for one in trained.history])
        one, other = np.array(histories)
        assert np.ptp(one[:, 1]) > 0.02  # it learns
        np.testing.assert_allclose(one, other, rtol=2e-3)

    def test_a_mirrored_strategy_trains_the_same(
        self, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rows = make_rows(tmp_path / "rows", pictures(), np.arange(12) % NUM_CLASSES)
        tuning = TuningConfig(epochs=1, batch_size=4, learning_rate=0.01)
        losses = []
        for strategy in (tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["/cpu:0"])):
            monkeypatch.setattr(
                "headstart.tasks.running.devices.strategy", lambda over=strategy: over
            )
            head = build_head(HeadConfig(), (8,), NUM_CLASSES)
            network = extend(head, (("logits",),), backbone, PIXELS, "top")
            folder = tmp_path / type(strategy).__name__
            trained = train_network(
                network, [1.0, 0.3], rows, rows, tuning, HeadConfig(), NUM_CLASSES, folder
            )
            losses.append(trained.history[0].val_loss)
        assert losses[1] == pytest.approx(losses[0], rel=1e-4)

    def test_the_best_epoch_is_stepped_back_to(self) -> None:
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
        best = BestEpoch(patience=2)
        best.set_model(model)
        model.stop_training = False
        # The most images right (epoch 2) is not what chooses: heads are chosen by their loss too.
        figures = [(0.5, 1.0), (0.9, 0.9), (0.7, 0.8), (0.7, 0.85), (0.6, 0.81)]
        for epoch, (accuracy, loss) in enumerate(figures):
            model.set_weights([np.full((1, 1), epoch, np.float32)])
            best.on_epoch_end(epoch, {"val_accuracy": accuracy, "val_loss": loss})
            assert model.stop_training == (epoch == 4)
        best.on_train_end()
        assert best.best_epoch == 3
        assert model.get_weights()[0] == 2.0

    def test_validation_images_are_asked_for(self) -> None:
        with pytest.raises(TrainingError, match="val_fraction"):
            require_validation({"train": 1})


def behind(extractor: Any, network: Network) -> Network:
    """Put the frozen layers before a network, as a user of Keras would."""
    extractor.trainable = False
    pixels = keras.Input((SIDE, SIDE, 3), name="bottleneck")
    features = extractor.call(pixels, training=False)
    model = keras.Model(pixels, network.model.call(keras.tree.flatten(features)[0]))
    return Network(model, network.groups)


class TestRungs:
    def test_the_default_backbone_is_cut_at_the_ends_of_blocks(self) -> None:
        lite = load_backbone(BackboneConfig(weights="random"))
        assert plan_rungs(lite, 2) == ["block6d_add", "block6b_add"]
        assert plan_rungs(lite, 10)[:2] == ["block6d_add", "block6b_add"]  # up to a half
        spread = spread_cuts(lite, 5)
        assert spread[-1] == "top"
        order = [cut.name for cut in lite.cuts]
        assert sorted(spread, key=order.index) == spread
        assert len(set(spread)) == 5

    def plan(self, backbone: Backbone, *settings: str) -> tuple[str, ...]:
        return plan_cuts(backbone, build_config(FinetuneConfig, "images", settings=settings))

    def test_cuts_go_down(self, backbone: Backbone) -> None:
        assert self.plan(backbone, "ladder.cuts=[two_conv, one_conv]") == ("two_conv", "one_conv")
        with pytest.raises(ConfigError, match="two_conv does not lie below one_conv"):
            self.plan(backbone, "ladder.cuts=[one_conv, two_conv]")
        with pytest.raises(BackboneError, match="did you mean"):
            self.plan(backbone, "ladder.cuts=[on_conv]")

    def test_a_tail_is_gone_on_from_and_a_head_that_skips_layers_is_not(
        self, backbone: Backbone
    ) -> None:
        tail = ("bottlenecks.cut=two_conv", "head.kind=tail")
        assert self.plan(backbone, *tail, "ladder.cuts=[one_conv]") == ("one_conv",)
        with pytest.raises(ConfigError, match="skips the layers"):
            self.plan(backbone, "bottlenecks.cut=two_conv")

    def test_mcnemars_test_is_exact(self) -> None:
        assert mcnemar_p(0, 0) == 1.0
        assert mcnemar_p(5, 5) == 1.0
        assert mcnemar_p(0, 6) == pytest.approx(2 / 64)
        assert mcnemar_p(9, 1) == pytest.approx(2 * 11 / 1024)
        assert mcnemar_p(3000, 2000) < 1e-9

    def test_the_price_of_training_all_comes_from_the_deepest_rung(
        self, backbone: Backbone
    ) -> None:
        cut = backbone.resolve_cut("one_relu")
        rungs = [
            Rung(name="head", start="top", status="kept", images_per_s=1e6),
            Rung(name="a", start="one_relu", status="undone", images_per_s=100.0),
        ]
        step = cut.flops_after + cut.flops_backward_after
        expected = 50 / 100.0 * 3 * (cut.flops_before + cut.flops_after) / step
        assert estimate_epoch_s(backbone, 50, rungs) == pytest.approx(expected)
        assert estimate_epoch_s(backbone, 50, rungs[:1]) is None


def line_of(accuracy: float, name: str = "x") -> Line:
    return Line(
        name=name, split="test", accuracies=(accuracy,), accuracy=accuracy,
        interval=(accuracy - 0.02, accuracy + 0.02), num_trained=1, flops=1, once_flops=0,
        train_s=1, once_s=0, peak_bytes=None, largest_changes={},
    )  # fmt: skip


class TestStudies:
    def test_what_trains_is_the_strategys(self, backbone: Backbone) -> None:
        def trained(trial: Trial) -> list[str]:
            network = build_network(backbone, trial, HeadConfig(), NUM_CLASSES)
            return [name for names in network.groups for name in names]

        assert trained(Trial(name="last_layer")) == ["logits"]
        assert trained(Trial(name="b", starts=("one_relu",))) == ["logits", "two_conv", "two_bn"]
        short = Trial(name="short", end="one_relu", starts=(PIXELS,))
        assert trained(short) == ["logits", "one_conv", "one_bn"]

    def test_flops_are_those_of_what_trains(self, backbone: Backbone) -> None:
        dense = 2 * 8 * NUM_CLASSES
        conv_one, conv_two = 2 * 7 * 7 * 9 * 3 * 6, 2 * 3 * 3 * 9 * 6 * 8
        assert step_flops(backbone, Trial(name="l"), NUM_CLASSES) == 2 * dense
        block = Trial(name="b", starts=("one_relu",))
        assert step_flops(backbone, block, NUM_CLASSES) == 2 * conv_two + 3 * dense
        full = Trial(name="f", starts=(PIXELS,))
        assert step_flops(backbone, full, NUM_CLASSES) == 3 * (conv_one + conv_two + dense)

    def test_memory_is_what_the_work_adds_and_not_what_was_there(self) -> None:
        before = np.ones(40_000_000)  # 320 MB
        used = start_measuring()
        added = np.ones(10_000_000)
        del added
        peak = used()
        assert before.nbytes == 320_000_000
        if peak is None:
            pytest.skip("the system does not tell a process's peak")
        assert 70_000_000 < peak < 130_000_000

    def test_the_interval_over_very_many_images_is_students(self) -> None:
        values = {"a": [0.3, 0.4, 0.5]}
        low, high = intervals_of_means(values, 10**12, 0.95)["a"] or (0, 0)
        # t of 2 degrees of freedom at 97.5 %: 4.3027; standard error 0.1 / sqrt(3)
        assert (low, high) == pytest.approx((0.4 - 0.24841, 0.4 + 0.24841), abs=1e-4)
        assert intervals_of_means({"a": [0.8]}, 100, 0.95) == {"a": None}

    def test_seeds_that_agree_by_chance_leave_the_images_uncertainty(self) -> None:
        low, high = intervals_of_means({"a": [0.935, 0.935]}, 200, 0.95)["a"] or (0, 0)
        assert 0.02 < 0.935 - low < 0.05
        assert 0.02 < high - 0.935 < 0.05

    def test_intervals_share_their_variance_and_stay_within_0_and_1(self) -> None:
        found = intervals_of_means({"a": [0.5, 0.6], "b": [0.98, 1.0], "c": [0.5, 0.52]}, 50, 0.95)
        for low, high in filter(None, found.values()):
            assert 0.0 <= low < high <= 1.0
        low, high = found["a"] or (0, 0)
        assert high - low < 0.6  # two seeds alone would give -0.09 to 1.19

    @pytest.mark.parametrize(
        "twice", ["seeds=[0, 0]", "strategies=[full, full]", "inner_rates=[0.1, 0.1]"]
    )
    def test_the_same_training_twice_is_refused(self, twice: str) -> None:
        with pytest.raises(ConfigError, match="each once"):
            build_config(CompareConfig, "images", settings=(twice,))

    @pytest.mark.parametrize(
        ("model", "nothing"), [(CompareConfig, "strategies=[]"), (TransferabilityConfig, "cuts=[]")]
    )
    def test_a_study_of_nothing_is_refused(self, model: Any, nothing: str) -> None:
        with pytest.raises(ConfigError, match=nothing.partition("=")[0]):
            build_config(model, "images", settings=(nothing,))

    @pytest.mark.parametrize("model", [CompareConfig, TransferabilityConfig])
    @pytest.mark.parametrize(
        "setting",
        [
            "bottlenecks.cut=block6b_add",
            "bottlenecks.extra_cuts=[block6b_add]",
            "head.kind=mlp",
            "head.hidden_units=[8]",
            "head.optimizer=adam",
            "head.epochs=3",
            "head.schedule=constant",
            "head.momentum=0.5",
            "head.patience=1",
            "head.seed=1",
            "evaluation.top_k=3",
            "evaluation.num_calibration_bins=3",
            "evaluation.num_top_losses=3",
        ],
    )
    def test_a_setting_that_a_study_does_not_read_is_refused(
        self, model: Any, setting: str
    ) -> None:
        with pytest.raises(ConfigError, match=setting.partition("=")[0]):
            build_config(model, "images", settings=(setting,))

    @pytest.mark.parametrize("model", [CompareConfig, TransferabilityConfig])
    def test_averages_pass_the_gate_of_bottlenecks_too(self, model: Any) -> None:
        assert build_config(model, "images", settings=("bottlenecks.num_parity_rows=2",))

    @pytest.mark.parametrize("model", [CompareConfig, TransferabilityConfig])
    def test_a_setting_that_a_study_reads_is_taken(self, model: Any) -> None:
        read = (
            "bottlenecks.dtype=float32",
            "bottlenecks.batch_size=4",
            "head.optimizer=sgd",
            "head.learning_rate=0.1",
            "head.batch_size=8",
            "head.weight_decay=0.1",
            "head.dropout=0.2",
            "head.label_smoothing=0.1",
            "head.class_weights=balanced",
            "evaluation.num_bootstrap=20",
            "evaluation.confidence=0.9",
            "evaluation.seed=1",
        )
        assert build_config(model, "images", settings=read).head.label_smoothing == 0.1

    def test_the_order_is_told_as_it_is(self) -> None:
        line = line_of
        expected = {"full": line(0.9), "scratch": line(0.8), "last_layer": line(0.7)}
        assert "holds here" in order_sentence(expected)
        told = order_sentence({**expected, "scratch": line(0.6)})
        assert "does not hold here: full 90.0 % > last_layer 70.0 % > scratch 60.0 %" in told
        told = order_sentence({**expected, "scratch": line(0.9)})
        assert "is not shown here: full 90.0 % ≈ scratch 90.0 % > last_layer 70.0 %" in told
        assert order_sentence({"full": line(0.9)}) == ""

    def test_a_difference_within_noise_has_no_winner(self) -> None:
        first, near, far = line_of(0.9, name="a"), line_of(0.89, name="b"), line_of(0.7, name="c")
        assert headline([far, first]) == "a is best, with 90.0 % of the test images"
        told = headline([far, near, first])
        assert told.startswith("no clear winner: a has 90.0 %")
        assert told.endswith("the difference from b is within noise")

    def test_a_network_that_can_be_cut_at_its_top_only_has_no_last_block(self) -> None:
        from headstart.tasks.backbones.preprocessing import Preprocessing

        images = keras.Input((SIDE, SIDE, 3))
        model = keras.Model(images, keras.layers.GlobalAveragePooling2D()(images))
        backbone = Backbone("pool", SIDE, Preprocessing("none"), model)
        with pytest.raises(ConfigError, match="leave last_block out"):
            block_cut(backbone, build_config(CompareConfig, "images"))

    def test_nothing_lies_behind_the_top_to_be_a_last_block(self, backbone: Backbone) -> None:
        config = build_config(CompareConfig, "images", settings=("block_cut=top",))
        with pytest.raises(ConfigError, match="leave last_block out"):
            block_cut(backbone, config)

    def test_an_auxiliary_classifier_is_refused_by_name(self, tmp_path: Path) -> None:
        images = keras.Input((SIDE, SIDE, 3))
        x = keras.layers.Conv2D(4, 3)(images)
        auxiliary = keras.layers.Dense(3, name="auxiliary")(keras.layers.Flatten()(x))
        model = keras.Model(images, [keras.layers.GlobalAveragePooling2D()(x), auxiliary])
        model.save(tmp_path / "two.keras")
        with pytest.raises(BackboneError, match="2 outputs"):
            load_backbone(BackboneConfig(name=str(tmp_path / "two.keras")))

    def test_nothing_beats_the_front_in_both(self) -> None:
        points = [Point("slow", 9, 0.9), Point("bad", 5, 0.5), Point("quick", 1, 0.7)]
        assert [point.label for point in pareto_front(points)] == ["quick", "slow"]


class TestPages:
    def test_kernels_are_drawn_and_nothing_changes_where_frozen(self, backbone: Backbone) -> None:
        kernel = np.array(backbone.model.get_layer("one_conv").kernel)
        change = KernelChange("one_conv", kernel, kernel.copy())
        assert change.largest_change == 0.0
        with Image.open(io.BytesIO(kernels_png([change]))) as picture:
            assert picture.mode == "RGBA"  # the page shows through, light or dark
            clear = np.asarray(picture)[..., 3] == 0
        assert clear.mean() < 0.6  # and no large empty space
        assert first_convolutions(backbone) == ["one_conv", "two_conv"]

    def test_text_is_escaped(self, tmp_path: Path) -> None:
        row = {"Strategy": "<script>", "n": "1"}
        page = Page("a & b", "x | y", ["<note>"], [Section("Figures", rows=[row])])
        text = write_study_page(tmp_path / "page.html", page).read_text()
        assert "<script>" not in text
        assert "&lt;script&gt;" in text
        assert "\\<script\\>" in markdown_page(page)
        assert "x \\| y" in markdown_page(page)
