"""The backbones headstart knows by name: builder, input size, preprocessing, weights.

Nothing heavy is imported here, so that `headstart backbones` answers at once.
"""

from dataclasses import dataclass
from typing import Literal

PreprocessingMode = Literal["none", "tf", "torch", "caffe", "lite"]


@dataclass(frozen=True)
class BackboneEntry:
    """One row of the table.

    Attributes:
        name: What `BackboneConfig.name` calls it.
        family: Networks of one family share code and preprocessing.
        builder: Function of `keras.applications`; for the family efficientnet_lite, the variant
            that `headstart.tasks.backbones.efficientnet_lite` builds; for the family classic,
            the name in `headstart.tasks.backbones.classic`.
        preprocessing: What the network's weights expect of their input; "none" where the
            network does it in its own first layers.
        image_size: Side of the images the pretrained weights were trained on, in pixels.
        pretrained: Where pretrained weights come from: a Python package, which works offline; a
            download by Keras, once; or nowhere.
    """

    name: str
    family: str
    builder: str
    preprocessing: PreprocessingMode
    image_size: int
    pretrained: Literal["package", "download", "none"] = "download"


def _family(
    family: str, preprocessing: PreprocessingMode, *members: tuple[str, str, int]
) -> tuple[BackboneEntry, ...]:
    return tuple(
        BackboneEntry(name, family, builder, preprocessing, image_size)
        for name, builder, image_size in members
    )


# Modes and sizes: keras.applications' own preprocess_input and default input shapes; a test
# compares every row with the installed Keras.
_KERAS = (
    *_family("vgg", "caffe", ("vgg16", "VGG16", 224), ("vgg19", "VGG19", 224)),
    *_family(
        "resnet",
        "caffe",
        ("resnet50", "ResNet50", 224),
        ("resnet101", "ResNet101", 224),
        ("resnet152", "ResNet152", 224),
    ),
    *_family(
        "resnet_v2",
        "tf",
        ("resnet50_v2", "ResNet50V2", 224),
        ("resnet101_v2", "ResNet101V2", 224),
        ("resnet152_v2", "ResNet152V2", 224),
    ),
    *_family("inception_v3", "tf", ("inception_v3", "InceptionV3", 299)),
    *_family("inception_resnet_v2", "tf", ("inception_resnet_v2", "InceptionResNetV2", 299)),
    *_family("xception", "tf", ("xception", "Xception", 299)),
    *_family("mobilenet", "tf", ("mobilenet", "MobileNet", 224)),
    *_family("mobilenet_v2", "tf", ("mobilenet_v2", "MobileNetV2", 224)),
    *_family(
        "mobilenet_v3",
        "none",
        ("mobilenet_v3_small", "MobileNetV3Small", 224),
        ("mobilenet_v3_large", "MobileNetV3Large", 224),
    ),
    *_family(
        "densenet",
        "torch",
        ("densenet121", "DenseNet121", 224),
        ("densenet169", "DenseNet169", 224),
        ("densenet201", "DenseNet201", 224),
    ),
    *_family(
        "nasnet",
        "tf",
        ("nasnet_mobile", "NASNetMobile", 224),
        ("nasnet_large", "NASNetLarge", 331),
    ),
    *_family(
        "efficientnet",
        "none",
        ("efficientnet_b0", "EfficientNetB0", 224),
        ("efficientnet_b1", "EfficientNetB1", 240),
        ("efficientnet_b2", "EfficientNetB2", 260),
        ("efficientnet_b3", "EfficientNetB3", 300),
        ("efficientnet_b4", "EfficientNetB4", 380),
        ("efficientnet_b5", "EfficientNetB5", 456),
        ("efficientnet_b6", "EfficientNetB6", 528),
        ("efficientnet_b7", "EfficientNetB7", 600),
    ),
    *_family(
        "efficientnet_v2",
        "none",
        ("efficientnet_v2_b0", "EfficientNetV2B0", 224),
        ("efficientnet_v2_b1", "EfficientNetV2B1", 240),
        ("efficientnet_v2_b2", "EfficientNetV2B2", 260),
        ("efficientnet_v2_b3", "EfficientNetV2B3", 300),
        ("efficientnet_v2_s", "EfficientNetV2S", 384),
        ("efficientnet_v2_m", "EfficientNetV2M", 480),
        ("efficientnet_v2_l", "EfficientNetV2L", 480),
    ),
    *_family(
        "convnext",
        "none",
        ("convnext_tiny", "ConvNeXtTiny", 224),
        ("convnext_small", "ConvNeXtSmall", 224),
        ("convnext_base", "ConvNeXtBase", 224),
        ("convnext_large", "ConvNeXtLarge", 224),
        ("convnext_xlarge", "ConvNeXtXLarge", 224),
    ),
)

# Source: tensorflow/tpu, models/official/efficientnet/lite (sizes and (x - 127) / 128).
_LITE = (
    BackboneEntry("efficientnet_lite0", "efficientnet_lite", "lite0", "lite", 224, "package"),
    BackboneEntry("efficientnet_lite1", "efficientnet_lite", "lite1", "lite", 240, "package"),
    BackboneEntry("efficientnet_lite2", "efficientnet_lite", "lite2", "lite", 260, "package"),
    BackboneEntry("efficientnet_lite3", "efficientnet_lite", "lite3", "lite", 280, "none"),
    BackboneEntry("efficientnet_lite4", "efficientnet_lite", "lite4", "lite", 300, "none"),
)

# For training from scratch (headstart scratch); sizes: their publications.
_CLASSIC = (
    BackboneEntry("resnet9", "classic", "resnet9", "tf", 32, "none"),
    BackboneEntry("lenet5", "classic", "lenet5", "tf", 32, "none"),
    BackboneEntry("alexnet", "classic", "alexnet", "tf", 227, "none"),
)

BACKBONES: dict[str, BackboneEntry] = {entry.name: entry for entry in (*_LITE, *_KERAS, *_CLASSIC)}
"""Every backbone by name; the default first."""
