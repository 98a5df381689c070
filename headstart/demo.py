"""The demo's data: scikit-learn's handwritten digits as a folder of PNG files."""

import os
from pathlib import Path

from headstart.config import TransferConfig, load_config

IMAGE_SIZE = 64
"""Side of the demo's views in pixels: small, so that the whole demo takes a minute on two
cores; the backbone's own 224 pixels would take ten times as long and gain nothing on 8x8."""
SCALE = 4
"""The digits are 8x8 pixels; they are written larger, so that a person can look at them."""


def write_digits(folder: str | Path, num_images: int | None = None) -> Path:
    """Write the digits as ``folder/<digit>/<number>.png``, where they are not there yet.

    Args:
        folder: Made where it does not exist.
        num_images: How many of them; all where not given.

    Returns:
        The folder: 1,797 images of 10 classes, or as many as were asked for.

    Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998; it
    comes with scikit-learn.
    """
    from PIL import Image
    from sklearn.datasets import load_digits

    folder = Path(folder)
    digits = load_digits()
    pairs = list(zip(digits.images, digits.target, strict=True))[:num_images]
    for number, (pixels, label) in enumerate(pairs):
        path = folder / str(label) / f"{number:04}.png"
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray((pixels * (255 / 16)).astype("uint8"))  # 16 gray levels
        draft = path.with_name(f".{path.name}.{os.getpid()}")  # a kill leaves no half of a picture
        image.resize((8 * SCALE, 8 * SCALE), Image.Resampling.BICUBIC).save(draft, "PNG")
        draft.replace(path)
    return folder


def demo_config(images: Path) -> TransferConfig:
    """Return the configuration of the demo."""
    return load_config(images, overrides={"views.image_size": IMAGE_SIZE})
