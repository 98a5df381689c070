import hashlib
import io
import math
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from rich.console import Console

from headstart.config import HeadConfig
from headstart.errors import TrainingError
from headstart.tasks.bottlenecks.rows import LabelledRows
from headstart.tasks.head.batches import TrainingBatches, epoch_order, evaluation_batches
from headstart.tasks.head.optimizer import make_optimizer
from headstart.tasks.head.training import TrainedHead, build_head, predict_logits, train_head
from headstart.tasks.progress import Reporter, use_reporter
from headstart.tasks.store.artifacts import Store
from headstart.tasks.store.records import RowCollection, RowId
from headstart.tasks.targets.classes import class_weights

NUM_CLASSES = 3


def make_rows(
    folder: Path,
    tensors: npt.NDArray[np.floating],
    labels: list[int] | npt.NDArray[np.int64],
    name: str = "rows",
) -> LabelledRows:
    """Write tensors [n, 1 + V, *shape] as rows of a store, in an order of its own."""
    num_images, num_views = tensors.shape[:2]
    ids = [hashlib.sha256(f"{name}{i}".encode()).hexdigest() for i in range(num_images)]
    collection = RowCollection(
        Store(folder), "bottlenecks", name, tensors.shape[2:], str(tensors.dtype)
    )
    with collection.lock(), collection.writer(num_images * num_views) as writer:
        for i in reversed(range(num_images)):
            for view in range(num_views):
                writer.write(RowId(ids[i], view), tensors[i, view])
    plain = collection.select([RowId(image, 0) for image in ids])
    augmented = [RowId(image, view) for image in ids for view in range(1, num_views)]
    positions = np.empty((num_images, num_views), np.int64)
    positions[:, 0] = np.arange(num_images)
    positions[:, 1:] = np.arange(len(augmented)).reshape(num_images, num_views - 1)
    readers = (plain, collection.select(augmented)) if augmented else (plain,)
    return LabelledRows(readers, positions, np.asarray(labels, np.int32))


def clusters(num_images: int, seed: int = 0) -> tuple[npt.NDArray[np.float32], npt.NDArray]:
    """Return plain views [n, 1, 6] around a centre for each class, and the labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num_images) % NUM_CLASSES
    centres = np.random.default_rng(99).normal(size=(NUM_CLASSES, 6))
    tensors = centres[labels] + 0.5 * rng.normal(size=(num_images, 6))
    return tensors[:, None].astype(np.float32), labels


@pytest.fixture
def train(tmp_path: Path) -> LabelledRows:
    return make_rows(tmp_path / "store", *clusters(41), name="train")


@pytest.fixture
def val(tmp_path: Path) -> LabelledRows:
    return make_rows(tmp_path / "store", *clusters(20, seed=1), name="val")


def weights_bytes(trained: TrainedHead) -> bytes:
    return b"".join(weight.tobytes() for weight in trained.model.get_weights())


def train_and_listen(
    train: LabelledRows, val: LabelledRows | None, config: HeadConfig, log_dir: Path
) -> tuple[TrainedHead, list[str]]:
    """Train, and return what a person would have read too."""
    heard = io.StringIO()
    with use_reporter(Reporter(Console(file=heard, width=100))):
        trained = train_head(train, val, config, NUM_CLASSES, None, log_dir)
    return trained, heard.getvalue().splitlines()


class TestBatches:
    def test_each_epoch_holds_each_image_once_in_the_epochs_view_and_order(
        self, tmp_path: Path
    ) -> None:
        image, view = np.meshgrid(np.arange(11), np.arange(3), indexing="ij")
        rows = make_rows(tmp_path, (10 * image + view)[..., None].astype(np.float32), [0] * 11)
        config = HeadConfig(batch_size=4, seed=7)
        batches = TrainingBatches(rows, config, 2)
        for epoch in range(3):
            batches.on_epoch_begin(epoch)
            values = [batch[0].numpy()[:, 0] for batch in batches.dataset]
            assert [len(batch) for batch in values] == [4, 4, 3]
            seen = np.concatenate(values)
            expected = 10 * epoch_order(11, 7, epoch) + [1, 2, 1][epoch]
            np.testing.assert_array_equal(seen, expected)

    def test_memory_and_files_give_the_same_batches(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = HeadConfig(batch_size=16)
        in_memory = make_rows(tmp_path, *clusters(41), name="same")
        monkeypatch.setattr("headstart.tasks.store.row_reader.RESIDENT_BYTES", 0)
        reader = in_memory.readers[0]
        on_disk = LabelledRows(
            (
                RowCollection(Store(tmp_path), "bottlenecks", "same", (6,), "float32").select(
                    reader.row_ids
                ),
            ),
            in_memory.positions,
            in_memory.labels,
        )
        for one, other in zip(
            TrainingBatches(in_memory, config, NUM_CLASSES).dataset,
            TrainingBatches(on_disk, config, NUM_CLASSES).dataset,
            strict=True,
        ):
            np.testing.assert_array_equal(one[0], other[0])
            np.testing.assert_array_equal(one[1], other[1])

    def test_float16_rows_are_fed_as_float32(self, tmp_path: Path) -> None:
        tensors, labels = clusters(9)
        rows = make_rows(tmp_path, tensors.astype(np.float16), labels)
        for bottlenecks, _ in evaluation_batches(rows, NUM_CLASSES):
            assert bottlenecks.dtype == tf.float32
            np.testing.assert_array_equal(
                bottlenecks, tensors[:, 0].astype(np.float16).astype(np.float32)
            )

    def test_balanced_batches_carry_the_weight_of_each_label(self, tmp_path: Path) -> None:
        rows = make_rows(tmp_path, np.zeros((4, 1, 2), np.float32), [0, 0, 0, 1])
        config = HeadConfig(batch_size=4, class_weights="balanced")
        ((_, targets, weights),) = TrainingBatches(rows, config, 2).dataset
        np.testing.assert_allclose(weights, np.where(targets[:, 1] == 1, 2.0, 4 / 6), rtol=1e-6)


class TestBuildHead:
    def test_linear_is_one_dense_layer_named_logits(self) -> None:
        head = build_head(HeadConfig(kind="linear", dropout=0.0), (6,), NUM_CLASSES)
        assert [layer.name for layer in head.layers] == ["bottleneck", "logits"]
        assert head.output_shape == (None, NUM_CLASSES)

    def test_mlp_drops_before_each_dense_layer(self) -> None:
        head = build_head(HeadConfig(kind="mlp", hidden_units=(8, 4), dropout=0.3), (6,), 3)
        kinds = [type(layer).__name__ for layer in head.layers[1:]]
        assert kinds == ["Dropout", "Dense"] * 3
        assert [layer.units for layer in head.layers if hasattr(layer, "units")] == [8, 4, 3]

    def test_spatial_bottlenecks_are_averaged_over_positions(self) -> None:
        head = build_head(HeadConfig(kind="linear"), (2, 3, 4), NUM_CLASSES)
        bottlenecks = np.random.default_rng(0).normal(size=(5, 2, 3, 4)).astype(np.float32)
        kernel, bias = head.get_layer("logits").get_weights()
        expected = bottlenecks.mean(axis=(1, 2)) @ kernel + bias
        np.testing.assert_allclose(head(bottlenecks), expected, rtol=1e-5, atol=1e-6)

    def test_a_tails_layers_become_the_heads_own(self) -> None:
        tail = make_tail()
        head = build_head(HeadConfig(kind="tail"), (4, 4, 2), NUM_CLASSES, tail)
        assert head.get_layer("tail_conv") is tail.get_layer("tail_conv")
        assert head.get_layer("logits").kernel.shape == (5, NUM_CLASSES)

    def test_a_tails_batch_norm_keeps_its_statistics(self, tmp_path: Path) -> None:
        tensors = np.random.default_rng(0).normal(3, 2, size=(9, 1, 4, 4, 2)).astype(np.float32)
        rows = make_rows(tmp_path / "store", tensors, np.arange(9) % NUM_CLASSES)
        tail = make_tail()
        train_head(rows, None, HeadConfig(kind="tail", epochs=1), NUM_CLASSES, tail, tmp_path)
        np.testing.assert_array_equal(tail.get_layer("tail_bn").moving_mean, np.zeros(5))

    @pytest.mark.parametrize(("kind", "given"), [("tail", False), ("linear", True)])
    def test_a_tail_is_given_for_the_kind_tail_alone(self, kind: str, given: bool) -> None:
        with pytest.raises(TrainingError, match="kind tail"):
            build_head(HeadConfig(kind=kind), (4, 4, 2), 3, make_tail() if given else None)

    def test_a_tail_of_another_cut_is_refused(self) -> None:
        with pytest.raises(TrainingError, match=r"\(4, 4, 2\)"):
            build_head(HeadConfig(kind="tail"), (8, 8, 2), 3, make_tail())


def make_tail() -> keras.Model:
    inputs = keras.Input((4, 4, 2))
    features = keras.layers.Conv2D(5, 3, name="tail_conv")(inputs)
    features = keras.layers.BatchNormalization(name="tail_bn", trainable=False)(features)
    features = keras.layers.Dropout(0.1, name="dropout")(features)
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(features))


class TestTrainHead:
    def test_training_moves_the_rate_at_every_step(self, train: LabelledRows, tmp_path: Path):
        seen: list[float] = []

        class Watch(keras.callbacks.Callback):
            def on_train_batch_begin(self, batch, logs=None):
                seen.append(float(self.model.optimizer.learning_rate))

        config = HeadConfig(epochs=2, batch_size=16, learning_rate=0.1, schedule="cosine")
        trained = train_head(train, None, config, NUM_CLASSES, None, tmp_path, [Watch()])
        expected = [0.05 * (1 + math.cos(math.pi * step / 6)) for step in range(6)]
        np.testing.assert_allclose(seen, expected, rtol=1e-6)
        assert [figures.learning_rate for figures in trained.history] == [seen[0], seen[3]]

    def test_learns_separable_clusters(self, train, val, tmp_path: Path) -> None:
        config = HeadConfig(epochs=20, batch_size=8, learning_rate=0.05)
        trained = train_head(train, val, config, NUM_CLASSES, None, tmp_path)
        logits = predict_logits(trained.model, val)
        assert logits.shape == (20, NUM_CLASSES)
        assert logits.dtype == np.float32
        assert (logits.argmax(1) == val.labels).mean() >= 0.9

    def test_figures_agree_with_the_models_own_logits(self, train, val, tmp_path: Path) -> None:
        # Smoothing and weights change what is minimised, not the validation loss that is shown.
        config = HeadConfig(epochs=2, label_smoothing=0.3, class_weights="balanced", batch_size=8)
        trained = train_head(train, val, config, NUM_CLASSES, None, tmp_path)
        logits = predict_logits(trained.model, val, batch_size=7).astype(np.float64)
        log_sums = np.log(np.exp(logits).sum(1))
        loss = (log_sums - logits[np.arange(20), val.labels]).mean()
        best = trained.history[trained.best_epoch - 1]
        assert best.val_loss == pytest.approx(loss, rel=1e-5)
        assert best.val_accuracy == pytest.approx((logits.argmax(1) == val.labels).mean())

    def test_train_loss_is_the_mean_over_images_of_smoothed_weighted_cross_entropy(
        self, train, tmp_path: Path
    ) -> None:
        config = HeadConfig(
            epochs=1, dropout=0.0, label_smoothing=0.3, class_weights="balanced", batch_size=16,
            learning_rate=1e-10,
        )  # fmt: skip
        trained = train_head(train, None, config, NUM_CLASSES, None, tmp_path)
        logits = predict_logits(trained.model, train).astype(np.float64)
        log_shares = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        targets = np.eye(NUM_CLASSES)[train.labels] * 0.7 + 0.1
        weights = class_weights(train.labels, NUM_CLASSES)[train.labels]
        loss = (-(targets * log_shares).sum(1) * weights).mean()
        assert trained.history[0].train_loss == pytest.approx(loss, rel=1e-5)

    @pytest.mark.parametrize("kind", ["linear", "mlp", "tail"])
    def test_two_runs_give_the_same_bytes(self, kind: str, tmp_path: Path) -> None:
        tensors = np.random.default_rng(0).normal(size=(41, 3, 4, 4, 2)).astype(np.float16)
        rows = make_rows(tmp_path / "store", tensors, np.arange(41) % NUM_CLASSES)
        config = HeadConfig(kind=kind, epochs=3, batch_size=8, seed=3, hidden_units=(8,))
        weights = make_tail().get_weights()
        runs = []
        for run in range(2):
            keras.utils.set_random_seed(run)  # what the caller does must not matter
            tail = make_tail() if kind == "tail" else None
            if tail is not None:
                tail.set_weights(weights)
            runs.append(train_head(rows, rows, config, NUM_CLASSES, tail, tmp_path / str(run)))
        assert weights_bytes(runs[0]) == weights_bytes(runs[1])
        assert [figures.train_loss for figures in runs[0].history] == [
            figures.train_loss for figures in runs[1].history
        ]

    def test_the_callers_random_state_is_left_alone(self, train, tmp_path: Path) -> None:
        def draw(*, with_training: bool) -> tuple[float, float, float]:
            import random

            keras.utils.set_random_seed(5)
            if with_training:
                train_head(train, None, HeadConfig(epochs=1), NUM_CLASSES, None, tmp_path)
            return random.random(), float(np.random.rand()), float(tf.random.uniform(()))  # noqa: NPY002

        assert draw(with_training=True) == draw(with_training=False)

    def test_another_seed_gives_another_head(self, train, tmp_path: Path) -> None:
        one, other = (
            train_head(train, None, HeadConfig(epochs=1, seed=seed), NUM_CLASSES, None, tmp_path)
            for seed in (0, 1)
        )
        assert weights_bytes(one) != weights_bytes(other)

    @pytest.mark.parametrize(
        "fields",
        [
            {},
            {"kind": "mlp", "hidden_units": (8,), "optimizer": "sgd", "schedule": "one_cycle"},
            {"class_weights": "balanced", "label_smoothing": 0.2, "dropout": 0.0, "patience": 2},
        ],
    )
    def test_whole_epochs_in_one_call_train_as_keras_fit_does_batch_by_batch(
        self, tmp_path: Path, fields: dict
    ) -> None:
        rng = np.random.default_rng(0)
        tensors = rng.normal(size=(41, 3, 2, 2, 6)).astype(np.float16)
        labels = np.arange(41) // 2 % NUM_CLASSES
        train = make_rows(tmp_path / "store", tensors, labels, name="train")
        val = make_rows(tmp_path / "store", tensors[:20, :1] + 1, labels[:20], name="val")
        batches: list[int] = []
        watch = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: batches.append(batch)
        )
        config = HeadConfig(epochs=4, batch_size=8, learning_rate=0.05, **fields)
        plain = train_head(train, val, config, NUM_CLASSES, None, tmp_path / "a")
        watched = train_head(train, val, config, NUM_CLASSES, None, tmp_path / "b", [watch])
        assert batches == [0, 1, 2, 3, 4, 5] * len(watched.history)  # this one was head.fit
        assert weights_bytes(plain) == weights_bytes(watched)
        assert plain.best_epoch == watched.best_epoch
        for one, other in zip(plain.history, watched.history, strict=True):
            for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy"):
                assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-6)
            assert one.learning_rate == other.learning_rate

    def test_watchers_see_the_first_steps_and_the_rest_is_trained_alike(
        self, train, val, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("headstart.tasks.head.compiled_epochs.WATCHED_STEPS", 8)
        seen: list[int | str] = []
        watch = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: seen.append(batch),
            on_train_end=lambda logs: seen.append("end"),
        )
        config = HeadConfig(epochs=4, batch_size=8)
        plain = train_head(train, val, config, NUM_CLASSES, None, tmp_path / "a")
        watched = train_head(
            train, val, config, NUM_CLASSES, None, tmp_path / "b", watchers=[watch]
        )
        assert seen == [0, 1, 2, 3, 4, 5] * 2 + ["end"]  # two epochs have the first 8 steps
        assert weights_bytes(plain) == weights_bytes(watched)
        assert [one.epoch for one in watched.history] == [1, 2, 3, 4]
        assert plain.best_epoch == watched.best_epoch

    def test_watchers_see_every_step_of_a_training_that_breaks_later(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("headstart.tasks.head.compiled_epochs.WATCHED_STEPS", 1)
        tensors, labels = clusters(16)
        views = np.repeat(tensors, 4, axis=1)
        views[:, 3] = np.inf  # of the third epoch
        rows = make_rows(tmp_path / "store", views, labels)
        losses: list[float] = []
        watch = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: losses.append(logs["loss"])
        )
        config = HeadConfig(epochs=4, batch_size=8)
        with pytest.raises(TrainingError, match="a bottleneck is not"):
            train_head(rows, None, config, NUM_CLASSES, None, tmp_path, watchers=[watch])
        assert len(losses) == 2 + 5  # an epoch; then again, up to the step that broke
        assert not math.isfinite(losses[-1])

    def test_the_best_epoch_is_restored_and_training_stops_early(
        self, train, tmp_path: Path
    ) -> None:
        kept: list[bytes] = []

        class Keep(keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                kept.append(b"".join(weight.tobytes() for weight in self.model.get_weights()))

        # Validation labels that are wrong: the better the training, the worse they come out.
        tensors, labels = clusters(20, seed=1)
        wrong = make_rows(tmp_path / "store", tensors, (labels + 1) % NUM_CLASSES, name="wrong")
        config = HeadConfig(epochs=9, patience=2, learning_rate=0.1, schedule="constant")
        trained = train_head(train, wrong, config, NUM_CLASSES, None, tmp_path, [Keep()])
        losses = [figures.val_loss for figures in trained.history]
        assert trained.best_epoch == 1 + int(np.argmin(losses))
        assert len(losses) == trained.best_epoch + 2
        assert trained.stopped_early
        assert weights_bytes(trained) == kept[trained.best_epoch - 1] != kept[-1]

    def test_patience_zero_trains_all_epochs_and_still_restores_the_best(
        self, train, tmp_path: Path
    ) -> None:
        tensors, labels = clusters(20, seed=1)
        wrong = make_rows(tmp_path / "store", tensors, (labels + 1) % NUM_CLASSES, name="wrong")
        config = HeadConfig(epochs=6, patience=0, learning_rate=0.1, schedule="constant")
        trained = train_head(train, wrong, config, NUM_CLASSES, None, tmp_path)
        assert len(trained.history) == 6
        assert not trained.stopped_early
        assert trained.best_epoch < 6

    @pytest.mark.parametrize("empty", [True, False])
    def test_without_validation_images_the_last_epoch_is_kept_and_said(
        self, train, tmp_path: Path, empty: bool
    ) -> None:
        val = LabelledRows(train.readers, train.positions[:0], train.labels[:0]) if empty else None
        config = HeadConfig(epochs=3, patience=1)
        trained, lines = train_and_listen(train, val, config, tmp_path)
        assert "no validation images: epoch 3, the last, is kept" in lines[-1]
        assert trained.best_epoch == 3
        assert [figures.val_loss for figures in trained.history] == [None] * 3

    @pytest.mark.parametrize("watched", [True, False])
    def test_infinite_loss_names_the_place_and_the_way_out(
        self, tmp_path: Path, watched: bool
    ) -> None:
        tensors, labels = clusters(41)
        rows = make_rows(tmp_path / "store", tensors * 1e30, labels)
        config = HeadConfig(
            epochs=3,
            optimizer="sgd",
            weight_decay=0.0,
            batch_size=8,
            schedule="constant",
        ).model_copy(update={"learning_rate": 1e38})
        ended: list[bool] = []
        watch = keras.callbacks.LambdaCallback(on_train_end=lambda logs: ended.append(True))
        with pytest.raises(TrainingError) as caught:
            train_head(rows, rows, config, NUM_CLASSES, None, tmp_path, [watch] * watched)
        assert caught.value.problem == "the training loss is not a finite number"
        assert "epoch 1, batch 2, at a learning rate of 1e+38" in caught.value.received
        assert "learning_rate=1e+37" in caught.value.next_step
        assert "headstart debug" in caught.value.next_step
        assert ended == [True] * watched

    @pytest.mark.parametrize("where", ["train", "val"])
    def test_broken_bottlenecks_are_named_as_the_cause(
        self, train, val, tmp_path: Path, where: str
    ) -> None:
        tensors, labels = clusters(20, seed=1)
        tensors[7, 0, 3] = np.inf
        broken = make_rows(tmp_path / "store", tensors, labels, name="broken")
        splits = (broken, val) if where == "train" else (train, broken)
        with pytest.raises(TrainingError, match="a bottleneck is not") as caught:
            train_head(*splits, HeadConfig(epochs=2), NUM_CLASSES, None, tmp_path)
        assert broken.readers[0].row_ids[7].image_digest in caught.value.received

    def test_a_class_without_training_images_is_refused(self, train, tmp_path: Path) -> None:
        with pytest.raises(TrainingError, match="none of class 3"):
            train_head(train, None, HeadConfig(), 4, None, tmp_path)

    def test_one_class_is_refused(self, tmp_path: Path) -> None:
        rows = make_rows(tmp_path / "store", np.zeros((3, 1, 2), np.float32), [0, 0, 0])
        with pytest.raises(TrainingError, match="at least two classes"):
            train_head(rows, None, HeadConfig(), 1, None, tmp_path)

    def test_labels_beyond_the_classes_are_refused(self, train, val, tmp_path: Path) -> None:
        val.labels[0] = 5
        with pytest.raises(TrainingError, match="labels from 0 to 5"):
            train_head(train, val, HeadConfig(), NUM_CLASSES, None, tmp_path)

    def test_keyboard_interrupt_passes_through(self, train, tmp_path: Path) -> None:
        def interrupt(batch: int, logs: object) -> None:
            raise KeyboardInterrupt

        watch = keras.callbacks.LambdaCallback(on_train_batch_end=interrupt)
        with pytest.raises(KeyboardInterrupt):
            train_head(train, None, HeadConfig(), NUM_CLASSES, None, tmp_path, [watch])

    def test_the_table_is_aligned_and_says_what_is_kept(self, train, val, tmp_path: Path) -> None:
        config = HeadConfig(epochs=2, schedule="constant")
        trained, lines = train_and_listen(train, val, config, tmp_path)
        header, first, second, summary = lines
        assert header.split() == [
            "epoch",
            "train",
            "loss",
            "val",
            "loss",
            "val",
            "accuracy",
            "s",
            "images/s",
        ]
        assert len(header) == len(first) == len(second)
        for line, figures in zip((first, second), trained.history, strict=True):
            assert line.split()[:4] == [
                str(figures.epoch),
                f"{figures.train_loss:.4f}",
                f"{figures.val_loss:.4f}",
                f"{figures.val_accuracy:.4f}",
            ]
        assert f"epoch {trained.best_epoch} is kept: val loss" in summary

    def test_tensorboard_scalars_are_written_for_both_splits(
        self, train, val, tmp_path: Path
    ) -> None:
        trained = train_head(train, val, HeadConfig(epochs=2), NUM_CLASSES, None, tmp_path)
        train_scalars, val_scalars = (
            read_scalars(tmp_path / name) for name in ("train", "validation")
        )
        assert set(train_scalars) == {"epoch_loss", "epoch_accuracy", "epoch_learning_rate"}
        assert set(val_scalars) == {"epoch_loss", "epoch_accuracy"}
        expected = {figures.epoch: pytest.approx(figures.val_loss) for figures in trained.history}
        assert val_scalars["epoch_loss"] == expected


def read_scalars(folder: Path) -> dict[str, dict[int, float]]:
    scalars: dict[str, dict[int, float]] = {}
    for file in folder.glob("events.out.tfevents.*"):
        for record in tf.data.TFRecordDataset(str(file)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                scalars.setdefault(value.tag, {})[event.step] = float(tf.make_ndarray(value.tensor))
    return scalars


class TestCachedAgainstUncached:
    """Training from bottlenecks is training through the frozen network, without its cost."""

    @pytest.mark.parametrize(
        # float16 keeps 11 bits, so each bottleneck is off by up to 2**-12 of itself; the losses
        # were seen to be off by 5e-6 at most (three seeds).
        ("dtype", "tolerance"),
        [("float32", 1e-5), ("float16", 5e-5)],
    )
    def test_loss_curves_agree(self, tmp_path: Path, dtype: str, tolerance: float) -> None:
        keras.utils.set_random_seed(0)
        rng = np.random.default_rng(0)
        labels = np.arange(53) % NUM_CLASSES
        images = rng.normal(size=(53, 8, 8, 3)).astype(np.float32) + labels[:, None, None, None]
        frozen = keras.Sequential(
            [
                keras.Input((8, 8, 3)),
                keras.layers.Conv2D(16, 3, activation="relu"),
                keras.layers.BatchNormalization(),
                keras.layers.Conv2D(12, 3, activation="relu"),
            ]
        )
        frozen.trainable = False
        config = HeadConfig(
            kind="mlp", hidden_units=(16,), epochs=5, batch_size=16, patience=0, optimizer="sgd",
            learning_rate=0.1, weight_decay=1e-3, label_smoothing=0.1,
        )  # fmt: skip
        bottlenecks = frozen(images).numpy()
        rows = make_rows(tmp_path / "store", bottlenecks[:, None].astype(dtype), labels)
        cached = train_head(rows, rows, config, NUM_CLASSES, None, tmp_path)

        head = build_head(config, bottlenecks.shape[1:], NUM_CLASSES)
        uncached = keras.Sequential([keras.Input((8, 8, 3)), frozen, head])
        uncached.compile(
            make_optimizer(config, 5 * 4, head.trainable_variables),
            keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1),
        )
        targets = np.eye(NUM_CLASSES, dtype=np.float32)[labels]
        losses = []
        for epoch in range(5):
            order = epoch_order(53, config.seed, epoch)
            history = uncached.fit(
                images[order], targets[order], batch_size=16, shuffle=False, verbose=0
            )
            losses.append(history.history["loss"][0])
        assert losses[-1] < 0.9 * losses[0]
        np.testing.assert_allclose(
            [figures.train_loss for figures in cached.history], losses, rtol=0, atol=tolerance
        )
