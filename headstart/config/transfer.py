"""The stages of a transfer run, one model each."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from headstart.config.augmentations import Augmentation, ColorJitter, Flip, RandomResizedCrop
from headstart.config.base import (
    BatchSize,
    Config,
    DroppedShare,
    Epochs,
    LearningRate,
    Momentum,
    NamedPath,
    NameOrPath,
    Patience,
    Seed,
    Split,
    TargetKind,
    WeightDecay,
)
from headstart.config.budget import BudgetConfig
from headstart.config.spread import SpreadConfig


def _as_cell(value: Any) -> Any:
    """Write what YAML has read as a number or a switch as it stood in the cell."""
    return str(value).lower() if isinstance(value, bool | int | float) else value


CellText = Annotated[str, BeforeValidator(_as_cell)]
_CELL_KINDS: dict[str, dict[str, float]] = {
    "string": {},
    "number": {"minimum": -1e15, "maximum": 1e15},
    "boolean": {},
}
_CELL = [{"type": kind, **bounds} for kind, bounds in _CELL_KINDS.items()]
CellTexts = Annotated[
    CellText | tuple[CellText, ...],
    # Prefect's form takes what is typed into such a field for JSON: 0 is a number there.
    WithJsonSchema({"anyOf": [*_CELL, {"type": "array", "items": {"anyOf": _CELL}}]}),
]
"""One text of a cell, or several that mean the same."""
ColumnName = Annotated[str, BeforeValidator(_as_cell), Field(min_length=1)]


class ReadingConfig(Config):
    """How a folder of image files is read, or a manifest that names them."""

    images: Path | str
    """Path of the folder or manifest."""
    layout: Literal["auto", "classes"] = "auto"
    """classes: each folder in the root is a class, whatever its name. auto: split folders are
    known by their names, and a tree that may be read in two ways is refused."""
    split_names: dict[CellText, Split | Literal["ignore"]] = {}
    """What a split folder, or a value of a manifest's split column, means where its name does not
    say so: train, val, test, or ignore; for instance {holdout: test, extra: ignore}."""
    root: NamedPath | None = None
    """Folder that the paths of a manifest are relative to; by default the manifest's own folder."""
    allow_outside: bool = False
    """Also use images that a manifest names by absolute paths outside that folder, and follow links
    that lead out of a folder of images."""
    path_column: str | None = Field(None, min_length=1)
    """Column of a manifest with the paths; by default path."""
    path_suffix: str = ""
    """Suffix to append to each path of a manifest, such as .jpg."""
    strip_prefix: str = ""
    """Prefix to remove from each path of a manifest, such as data/raw/."""
    label_column: str | None = Field(None, min_length=1)
    """Column of a manifest with the labels; by default label."""
    split_column: str | None = Field(None, min_length=1)
    """Column of a manifest with the splits; by default split, if there is one."""
    group_column: str | None = Field(None, min_length=1)
    """Column of a manifest that says which images belong together, as those of one patient: all
    images of a group go to the same split."""
    target: TargetKind | None = None
    """What is learned of an image: its class, any number of labels, or numbers. Where not given,
    a manifest's columns say it: label is a class, labels are labels; dataset.label_columns are
    labels, dataset.target_columns numbers."""
    label_separator: str | None = Field(None, min_length=1)
    """Separator between several labels in one cell; by default a semicolon."""
    label_columns: tuple[ColumnName, ...] = ()
    """Columns of a manifest with one label each, which say whether the image has it. A * stands for
    any letters: ["*"] takes all columns but those of paths and splits."""
    label_values: tuple[CellTexts, CellTexts] = ("0", "1")
    """What says no and yes in those columns; 0 and 1 also stand for false and true, no and yes.
    Either may be a list: [[0, -1], 1] takes -1 for no, [[0, ""], 1] an empty cell."""
    no_label: str | None = Field(None, min_length=1)
    """Word in place of labels that means "none", such as No Finding."""
    target_columns: tuple[ColumnName, ...] = ()
    """Columns of a manifest that each hold a number to learn; a * stands for any letters."""
    decimal_sign: Literal[".", ","] = "."
    """Decimal separator of those numbers."""
    thousands_sign: Literal["", ".", ",", " ", "'", "_"] = ""
    """Separator between groups of three digits of those numbers, if there is one."""
    number_unit: str = ""
    """Unit written after each of those numbers, such as kg or %."""
    missing_values: tuple[CellText, ...] = ()
    """Values that mean that an image has no target, such as NA or -1; an empty cell always means
    that. Such images are left out."""
    repeated_paths: Literal["refuse", "merge"] = "refuse"
    """What to do with an image on several lines with different labels: refuse leaves it out; merge
    gives it all of those labels, for manifests with one label per line."""


class DatasetConfig(ReadingConfig):
    """Which images, which labels, which split."""

    images: NamedPath
    """A folder with one sub-folder a class (optionally under train/, val/, test/), or a CSV or
    Parquet manifest with the columns path, label and, if wanted, split."""
    val_fraction: float = Field(0.15, ge=0.0, lt=1.0)
    """Share of the images held out for validation, if the data has no val split of its own."""
    test_fraction: float = Field(0.15, ge=0.0, lt=1.0)
    """Share of the images held out for testing, if the data has no splits of its own."""
    split_seed: Seed = 0
    """Seed of the split. An image's split depends only on this and on its own bytes."""
    strict: bool = False
    """Refuse the whole data set if any file cannot be used, instead of listing that file and going
    on."""
    max_pixels: int = Field(89_478_485, gt=0, le=2**31 - 1)
    """Images with more pixels than this are refused as decompression bombs (Pillow's limit)."""
    exclude: NamedPath | None = None
    """A list of images to leave out, as `headstart audit` writes it: CSV with the column digest or
    path, or text with one of them a line. Images it names are listed as left out."""

    @model_validator(mode="after")
    def _leave_something_to_train_on(self) -> "DatasetConfig":
        if self.val_fraction + self.test_fraction >= 1.0:
            raise ValueError("val_fraction + test_fraction must leave images to train on (< 1)")
        return self


class ViewsConfig(Config):
    """How an image becomes pixels: resizing, and the augmented views beside the plain one."""

    num_augmented: int = Field(0, ge=0, le=1000)
    """Number of augmented views per image, besides the plain view 0 that evaluation uses."""
    image_size: int | None = Field(None, ge=8, le=2048)
    """Side of a view in pixels; by default the backbone's own input size."""
    resize: Literal["squash", "crop", "pad"] = "squash"
    """squash: change the aspect ratio; crop: fill and cut the middle; pad: fit and add black."""
    augmentations: tuple[Augmentation, ...] = (RandomResizedCrop(), Flip(), ColorJitter())
    """Applied in this order to each augmented view; baked into the cache."""
    seed: Seed = 0
    """Seed of the augmentations."""


class BackboneConfig(Config):
    """The frozen network that computes the bottlenecks."""

    name: NameOrPath = "efficientnet_lite0"
    """A name from `headstart backbones`, or the path of a .keras file or SavedModel folder."""
    weights: str = "pretrained"
    """pretrained, random, or the path of a .weights.h5 file that fits the backbone."""
    seed: Seed = 0
    """Seed of random weights; no effect on pretrained ones."""
    preprocessing: Literal["auto", "none", "tf", "torch", "caffe", "lite"] = "auto"
    """Pixel preprocessing that the network expects. auto: what the table says for a named backbone,
    and none (RGB of 0 to 255) for a file. tf: x / 127.5 - 1; torch: ImageNet's mean and deviation;
    caffe: BGR less ImageNet's mean; lite: (x - 127) / 128."""


EngineName = Literal["tensorflow", "onnxruntime", "openvino"]
"""What computes a frozen network."""
Precision = Literal["float32", "bfloat16"]
"""Of a frozen network's arithmetic."""


class BottleneckConfig(Config):
    """Which activations are kept, and how."""

    cut: str = "top"
    """Layer after which the backbone is cut (`headstart cuts BACKBONE` lists them); top is the
    pooled output."""
    extra_cuts: tuple[str, ...] = ()
    """Further cuts written in the same pass of the backbone, for later runs."""
    dtype: Literal["float16", "float32"] = "float16"
    """Storage type of the activations."""
    engine: Literal["auto"] | EngineName = "auto"
    """Program that computes the activations. auto: TensorFlow on a GPU, and for small jobs;
    otherwise the fastest one installed, as measured on this machine and checked against TensorFlow.
    Changes the speed; results differ only in the last digits, which the parity gate checks."""
    precision: Precision = "float32"
    """bfloat16: about twice as fast on processors that have it (OpenVINO must be installed);
    activations are off by some percent, and are kept apart from the exact ones."""
    batch_size: int = Field(32, ge=1, le=4096)
    """Views per forward pass. Changes speed and memory use, not the results."""
    num_parity_rows: int = Field(8, ge=1, le=10_000)
    """Rows of those just extracted that are computed again through the uncut backbone, and
    compared; and as many of those that were there."""

    @model_validator(mode="after")
    def _compute_in_this_precision(self) -> "BottleneckConfig":
        if self.precision == "bfloat16" and self.engine not in ("auto", "openvino"):
            raise ValueError("precision=bfloat16 needs engine=openvino or auto")
        return self


class HeadConfig(Config):
    """What is trained on the bottlenecks."""

    kind: Literal["linear", "mlp", "tail", "nearest_mean", "knn"] = "linear"
    """linear: one dense layer; mlp: hidden layers before it; tail: the backbone's own layers
    behind the cut, from their pretrained weights, and a dense layer. Two are not trained, for a
    few images a class: nearest_mean (the class whose mean direction is the nearest) and knn (the
    nearest training images vote)."""
    num_neighbors: int = Field(5, ge=1, le=1000)
    """Number of nearest training images that vote in a knn head."""
    hidden_units: Annotated[
        tuple[Annotated[int, Field(ge=1, le=65_536)], ...], Field(max_length=64)
    ] = (256,)
    """Units of each hidden layer of an mlp."""
    solver: Literal["minibatch", "lbfgs", "ridge"] = "minibatch"
    """minibatch: epochs of small steps, as everything below says. lbfgs: the optimum itself of a
    linear head for classes or labels, ridge: of one for numbers, at the weight penalty that
    cross-validation on the training images chooses; only class_weights, min_precision and seed are
    read then, and the val split decides nothing but thresholds and intervals."""
    epochs: Epochs = 25
    """Maximum number of epochs; early stopping may end sooner."""
    batch_size: BatchSize = 128
    """Rows per training step."""
    optimizer: Literal["adam", "adamw", "sgd"] = "adamw"
    """adamw is adam with decoupled weight decay; sgd has Nesterov momentum."""
    learning_rate: LearningRate = 5e-3
    """Peak learning rate. The default suits new dense layers; a tail does better with 1e-3."""
    schedule: Literal["constant", "cosine", "one_cycle"] = "cosine"
    """Schedule of the learning rate over the epochs."""
    momentum: Momentum = 0.9
    """Momentum of sgd (Nesterov)."""
    weight_decay: WeightDecay = 1.0
    """Decoupled weight decay, on kernels only: each training step shrinks them by learning rate
    times this. The default suits adam and adamw, whose steps are normalised; with sgd use 1e-2 or
    less."""
    dropout: DroppedShare = 0.1
    """Share of the features dropped before each dense layer while training."""
    label_smoothing: float = Field(0.0, ge=0.0, le=0.99)
    """Share of a label that is spread evenly over all classes while training."""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: weigh each class by num_images / (num_classes * images of the class), and of each
    label likewise the images with it and without it."""
    number_loss: Literal["mse", "huber"] = "mse"
    """Loss for standardised numbers: mse is the squared error; huber is less sensitive to
    outliers."""
    min_precision: float | None = Field(None, gt=0.0, le=1.0)
    """Precision that each label's threshold must reach on the validation images; by default the
    threshold with the best F1."""
    patience: Patience = 8
    """Epochs without a better validation loss before training stops; 0 never stops early.
    The best epoch's weights are restored either way."""
    seed: Seed = 0
    """Seed of initial weights, shuffling and dropout; with a solver, of the folds."""

    @model_validator(mode="after")
    def _solve_what_can_be_solved(self) -> "HeadConfig":
        if not self.is_trained and self.class_weights != "none":
            raise ValueError(f"a {self.kind} head has no class_weights")
        if self.solver != "minibatch" and self.kind != "linear":
            raise ValueError(f"solver {self.solver} is for linear heads, not for kind {self.kind}")
        if self.solver != "minibatch" and self.label_smoothing:
            raise ValueError(f"solver {self.solver} has no label_smoothing")
        if self.solver == "ridge" and self.number_loss != "mse":
            raise ValueError("solver ridge minimises squared errors: it has no number_loss")
        return self

    @property
    def is_trained(self) -> bool:
        """Whether there is a training at all."""
        return self.kind not in ("nearest_mean", "knn")


class EvaluationConfig(Config):
    """How the trained head is evaluated."""

    top_k: int = Field(5, ge=1, le=1_000_000)
    """The k of top-k accuracy; capped by the number of classes."""
    num_bootstrap: int = Field(1000, ge=10, le=1_000_000)
    """Number of bootstrap resamples for the confidence interval of the accuracy."""
    confidence: float = Field(0.95, ge=0.01, le=0.9999)
    """Coverage of that interval."""
    num_calibration_bins: int = Field(15, ge=2, le=10_000)
    """Number of equal-width bins of the expected calibration error."""
    num_top_losses: int = Field(24, ge=0, le=1000)
    """Number of images with the highest loss to show."""
    seed: Seed = 0
    """Seed of the bootstrap."""


class ExportConfig(Config):
    """Formats that the model is exported in."""

    formats: tuple[
        Literal[
            "keras", "saved_model", "onnx", "openvino", "litert", "litert_float16", "litert_int8"
        ],
        ...,
    ] = ("keras", "saved_model")
    """keras is always written; saved_model also takes encoded bytes; onnx runs anywhere, openvino
    on Intel's processors, litert on devices too: float16 halves the file, int8 quarters it, and
    what they cost on val is told."""
    input: Literal["images", "views"] = "images"
    """Input of the onnx and openvino files: images of any size, which they resize themselves, or
    views of the model's own size."""
    num_calibration_images: int = Field(100, ge=1, le=10_000)
    """Training images whose views give litert_int8 the ranges of its integers."""
    num_proof_images: int = Field(16, ge=1, le=1000)
    """Images on which each exported file must give the pipeline's own predictions."""


class ShowConfig(Config):
    """What a run shows besides its report; this changes no result."""

    num_projected: int = Field(0, ge=0, le=4096)
    """Number of images whose bottlenecks are written for TensorBoard's projector, with class, file
    and thumbnail; 0 for none."""


class TransferConfig(Config):
    """Everything that `headstart train` and the transfer flow can be told."""

    dataset: DatasetConfig
    views: ViewsConfig = ViewsConfig()
    backbone: BackboneConfig = BackboneConfig()
    bottlenecks: BottleneckConfig = BottleneckConfig()
    head: HeadConfig = HeadConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    export: ExportConfig = ExportConfig()
    spread: SpreadConfig = SpreadConfig()
    show: ShowConfig = ShowConfig()
    budget: BudgetConfig = BudgetConfig()
