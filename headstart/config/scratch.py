"""Training from scratch: the data, the views of every epoch, the network, the schedule."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from headstart.config.base import Config, LearningRate, Momentum, NamedPath, Seed
from headstart.config.transfer import EvaluationConfig, ExportConfig, ReadingConfig


class ScratchDatasetConfig(ReadingConfig):
    """Which images and labels."""

    images: str = Field(min_length=1)
    """fashion-mnist, mnist, cifar10 or cifar100; a folder of images with one sub-folder per class;
    a folder with IDX or binary CIFAR files; or a manifest of images."""
    data: NamedPath | None = None
    """Folder with a copy of the named data set's files; by default they are looked for, and
    downloaded if missing."""
    image_size: int = Field(32, ge=8, le=512)
    """Side in pixels that image files are resized to; data sets keep their own."""
    test_fraction: float = Field(0.15, gt=0.0, lt=1.0)
    """Share of the image files held out for testing, if they have no test split of their own."""
    val_fraction: float = Field(0.1, ge=0.0, lt=1.0)
    """Share of the training images that find the thresholds of labels, or the intervals of numbers,
    where the data has no val split of its own; they are not trained on. Classes need none."""
    split_seed: Seed = 0
    """Seed of that split."""


class EpochViewsConfig(Config):
    """The augmented views that are computed beforehand, one an image for each epoch."""

    num_views: int | None = Field(None, ge=1, le=10_000)
    """Views per image; by default one per epoch, at most 300. With fewer, epochs share them."""
    padding: int | None = Field(None, ge=0, le=64)
    """Pixels of reflection added on each side before a crop back to size at a random place; by
    default an eighth of the side (4 at 32 pixels, 3 at 28)."""
    flip: bool | Literal["auto"] = "auto"
    """Mirror half of the views. auto: yes, except for mnist's digits and for targets that are
    numbers, which may describe a side or an angle."""
    cutout: int = Field(8, ge=0, le=256)
    """Side in pixels of a square painted over with the data set's mean; 0 for none."""
    seed: Seed = 0
    """Seed of the views and of their order."""


class NetworkConfig(Config):
    """The network that is trained."""

    name: Literal["resnet9", "lenet5", "alexnet"] = "resnet9"
    """Name of a built-in network."""
    width: Annotated[float, Field(ge=0.01, le=4.0)] | Literal["auto"] = 1.0
    """Factor that resnet9's channels are multiplied by: 1 is the published network with 6.5 M
    parameters. auto: the widest that a time budget allows enough epochs for."""
    pool_first: bool = False
    """Pool before batch normalisation and activation rather than after them: a quarter of the
    pixels to normalise. A step on a CPU took about a fifth less time, in single readings. Not the
    published order."""


class ScratchTrainingConfig(Config):
    """How it is trained: one cycle of learning rate and momentum."""

    epochs: int = Field(25, ge=1, le=10_000)
    """Epochs trained; with a time budget, as many as fit instead."""
    budget_s: float | None = Field(None, ge=1.0, le=1e7)
    """Seconds for measuring the machine, training and evaluating on the test images. It determines
    width and epochs, and the schedule follows the clock, so that training ends on time."""
    batch_size: int = Field(512, ge=2, le=65_536)
    """Views per training step."""
    learning_rate: LearningRate = 0.4
    """Peak learning rate of the cycle; `headstart lr-find` suggests one."""
    warmup: float = Field(0.2, ge=0.0, lt=1.0)
    """Share of the training in which the learning rate rises to its peak."""
    max_momentum: Momentum = 0.95
    """Momentum at both ends of the cycle, where the learning rate is low."""
    min_momentum: Momentum = 0.85
    """Momentum at the learning rate's peak."""
    weight_decay: float = Field(5e-4, ge=0.0, le=1.0)
    """L2 penalty on kernels; biases and batch normalisation are exempt."""
    label_smoothing: float = Field(0.1, ge=0.0, le=0.99)
    """Share of a label that is spread evenly over all classes during training; with several labels
    per image, each is moved towards one half by this share."""
    number_loss: Literal["mse", "huber"] = "mse"
    """Loss for standardised numbers: the squared error, or Huber's, which is less sensitive to
    outliers."""
    min_precision: float | None = Field(None, gt=0.0, le=1.0)
    """Precision that each label's threshold must reach; by default the threshold with the best
    F1."""
    ema: Momentum = 0.0
    """Decay of an exponential moving average of the weights, which replaces the weights at the end;
    0 for none."""
    mixed_precision: bool | Literal["auto"] = "auto"
    """Compute in 16 bits. auto: on a GPU with tensor cores, never on a CPU."""
    flip_test: bool = True
    """Also evaluate the mean of the logits of each test image and its mirror image, as split
    test_flip; only if the views are mirrored too."""
    seed: Seed = 0
    """Seed of the initial weights."""

    @model_validator(mode="after")
    def _order_momenta(self) -> "ScratchTrainingConfig":
        if self.min_momentum > self.max_momentum:
            raise ValueError("min_momentum must not exceed max_momentum")
        return self


class ScratchConfig(Config):
    """Everything that `headstart scratch` and its flow can be told."""

    dataset: ScratchDatasetConfig
    views: EpochViewsConfig = EpochViewsConfig()
    network: NetworkConfig = NetworkConfig()
    training: ScratchTrainingConfig = ScratchTrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    export: ExportConfig = ExportConfig(formats=("keras",))
    compare: bool = False
    """Train a second time without augmentation, for just as long, and show the accuracies and
    heatmaps of both side by side."""

    @model_validator(mode="after")
    def _need_a_budget_for_auto(self) -> "ScratchConfig":
        if self.network.width == "auto" and self.training.budget_s is None:
            raise ValueError("network.width=auto chooses by time: give training.budget_s")
        if self.network.name != "resnet9" and self.network.width not in (1.0, "auto"):
            raise ValueError("network.width only applies to resnet9")
        return self


QUICK: dict[str, Any] = {
    "network.width": 0.125,
    "network.pool_first": True,
    "training.budget_s": 70.0,
    "training.batch_size": 256,
    "training.learning_rate": 0.2,
    "views.cutout": 0,
    "views.padding": 2,
}
"""What ``--quick`` sets: on 2 cores a few epochs of a narrow network, done in two minutes with
everything around them."""
