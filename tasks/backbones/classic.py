"""Three networks that are trained from scratch: ResNet9, LeNet-5 and AlexNet.

Each is built up to its features [N, C], as every backbone is; a classifier goes on top. Only
stock Keras layers are used.
"""

from typing import Any

import keras

from headstart.errors import BackboneError

RESNET9_CHANNELS = (64, 128, 256, 512)
"""Channels of the published network's four stages. Source: Page, "How to train your ResNet",
2018, https://github.com/davidcpage/cifar10-fast (net of the post on bags of tricks)."""
RESNET9_LOGIT_SCALE = 0.125
"""Factor of the logits. Source: the same."""
BATCH_NORM_MOMENTUM = 0.9
"""Of the moving statistics. Source: PyTorch's default (0.1 of the new), which the published
network uses; Keras's 0.99 would lag behind in a training of a few hundred steps."""
_BATCH_NORM_EPSILON = 1e-5  # PyTorch's default, as above
_MIN_SIDES = {"resnet9": 8, "lenet5": 20, "alexnet": 67}


def check_image_shape(name: str, image_shape: tuple[int, int, int]) -> None:
    """Refuse images that a network is too deep for.

    Args:
        name: resnet9, lenet5 or alexnet.
        image_shape: Height, width and channels of its input.

    Raises:
        BackboneError: The images are too small.
    """
    least = _MIN_SIDES[name]
    if min(image_shape[:2]) < least:
        raise BackboneError(
            f"the images are too small: {name} needs at least {least} pixels per side",
            f"{image_shape[0]} x {image_shape[1]}",
            "give larger images" + ("" if name == "resnet9" else ", or take resnet9"),
        )


def build_classic(
    name: str,
    image_shape: tuple[int, int, int],
    width: float = 1.0,
    pool_first: bool = False,
) -> Any:
    """Build a network up to its features.

    Args:
        name: resnet9, lenet5 or alexnet.
        image_shape: Height, width and channels of its input.
        width: Factor of ResNet9's channels; the others have none.
        pool_first: ResNet9 only: max-pool before batch normalisation and ReLU.

    Returns:
        A functional model, preprocessed float32 [N, h, w, c] -> features [N, C].

    Raises:
        BackboneError: The images are too small.
    """
    check_image_shape(name, image_shape)
    if name == "resnet9":
        return _resnet9(image_shape, width, pool_first)
    return {"lenet5": _lenet5, "alexnet": _alexnet}[name](image_shape)


def build_classic_classifier(name: str, image_shape: tuple[int, int, int], num_classes: int) -> Any:
    """Build a network with its classifier, as published.

    Args:
        name: Such as "vgg16".
        image_shape: Height, width and channels of its input.
        num_classes: Width of the logits.

    Returns:
        A functional model, preprocessed float32 [N, h, w, c] -> logits [N, num_classes].
    """
    features = build_classic(name, image_shape)
    return keras.Model(features.inputs[0], classify(name, features.outputs[0], num_classes))


def classify(name: str, features: Any, num_classes: int) -> Any:
    """Put a network's own classifier on its features.

    Args:
        name: Such as "vgg16".
        features: KerasTensor [N, C].
        num_classes: Width of the logits.

    Returns:
        Logits, a KerasTensor float32 [N, num_classes], of a layer named "logits".
    """
    if name != "resnet9":
        return keras.layers.Dense(num_classes, name="logits", dtype="float32")(features)
    logits = keras.layers.Dense(num_classes, use_bias=False, name="classifier", dtype="float32")
    scale = keras.layers.Rescaling(RESNET9_LOGIT_SCALE, name="logits", dtype="float32")
    return scale(logits(features))


def _resnet9(image_shape: tuple[int, int, int], width: float, pool_first: bool) -> Any:
    """Build ResNet9: 6,568,640 weights and 4,480 of batch normalisation with 10 classes.

    Source: Page, "How to train your ResNet", 2018 (DavidNet), with the residual blocks after the
    first and the third stage.
    """
    channels = [max(1, round(width * number)) for number in RESNET9_CHANNELS]
    images = keras.Input(image_shape, name="preprocessed")
    x = _conv_block(images, channels[0], "prep")
    x = _conv_block(x, channels[1], "layer1", pool=True, pool_first=pool_first)
    x = _residual(x, channels[1], "layer1")
    x = _conv_block(x, channels[2], "layer2", pool=True, pool_first=pool_first)
    x = _conv_block(x, channels[3], "layer3", pool=True, pool_first=pool_first)
    x = _residual(x, channels[3], "layer3")
    return keras.Model(images, keras.layers.GlobalMaxPooling2D(name="pool")(x), name="resnet9")


def _conv_block(
    x: Any, channels: int, name: str, pool: bool = False, pool_first: bool = False
) -> Any:
    pooling = keras.layers.MaxPooling2D(name=f"{name}_pool") if pool else None
    x = keras.layers.Conv2D(channels, 3, padding="same", use_bias=False, name=f"{name}_conv")(x)
    if pooling is not None and pool_first:
        x = pooling(x)
    x = keras.layers.BatchNormalization(
        momentum=BATCH_NORM_MOMENTUM, epsilon=_BATCH_NORM_EPSILON, name=f"{name}_norm"
    )(x)
    x = keras.layers.Activation("relu", name=f"{name}_relu")(x)
    return pooling(x) if pooling is not None and not pool_first else x


def _residual(x: Any, channels: int, name: str) -> Any:
    inner = _conv_block(x, channels, f"{name}_res1")
    inner = _conv_block(inner, channels, f"{name}_res2")
    return keras.layers.Add(name=f"{name}_add")([x, inner])


def _lenet5(image_shape: tuple[int, int, int]) -> Any:
    """Build LeNet-5: 61,706 parameters for gray 32 x 32 images and 10 classes.

    As it is built today: every map of the third layer sees all maps before it, pooling has no
    weights, and a dense layer classifies. The publication's own count is 60,000, with a table of
    which maps see which, trainable pooling and fixed radial basis functions. 28 x 28 images are
    padded to the publication's 32 by the first convolution.

    Source: LeCun, Bottou, Bengio and Haffner, "Gradient-Based Learning Applied to Document
    Recognition", 1998, section II.B.
    """
    images = keras.Input(image_shape, name="preprocessed")
    padding = "same" if min(image_shape[:2]) < 32 else "valid"
    x = keras.layers.Conv2D(6, 5, padding=padding, activation="tanh", name="c1")(images)
    x = keras.layers.AveragePooling2D(2, name="s2")(x)
    x = keras.layers.Conv2D(16, 5, activation="tanh", name="c3")(x)
    x = keras.layers.AveragePooling2D(2, name="s4")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    x = keras.layers.Dense(120, activation="tanh", name="c5")(x)
    x = keras.layers.Dense(84, activation="tanh", name="f6")(x)
    return keras.Model(images, x, name="lenet5")


def _alexnet(image_shape: tuple[int, int, int]) -> Any:
    """Build AlexNet: 62,378,344 parameters for 227 x 227 RGB images and 1,000 classes.

    The publication's layer sizes on one device. Its own network splits three convolutions over
    two GPUs, which halves their weights: 60,965,224. Local response normalisation, which has no
    weights and was found not to help (Simonyan and Zisserman, 2015, section 4.1), is left out.

    Source: Krizhevsky, Sutskever and Hinton, "ImageNet Classification with Deep Convolutional
    Neural Networks", 2012, section 3.5; dropout: section 4.2.
    """
    images = keras.Input(image_shape, name="preprocessed")
    x = keras.layers.Conv2D(96, 11, strides=4, activation="relu", name="conv1")(images)
    x = keras.layers.MaxPooling2D(3, 2, name="pool1")(x)
    x = keras.layers.Conv2D(256, 5, padding="same", activation="relu", name="conv2")(x)
    x = keras.layers.MaxPooling2D(3, 2, name="pool2")(x)
    for number, filters in ((3, 384), (4, 384), (5, 256)):
        x = keras.layers.Conv2D(
            filters, 3, padding="same", activation="relu", name=f"conv{number}"
        )(x)
    x = keras.layers.MaxPooling2D(3, 2, name="pool5")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    for number in (6, 7):
        x = keras.layers.Dense(4096, activation="relu", name=f"fc{number}")(x)
        x = keras.layers.Dropout(0.5, name=f"drop{number}")(x)
    return keras.Model(images, x, name="alexnet")
