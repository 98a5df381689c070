"""The augmentations a view can be made with."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from headstart.config.base import Config


class Flip(Config):
    """Mirror left and right."""

    kind: Literal["flip"] = "flip"
    probability: float = Field(0.5, ge=0.0, le=1.0)
    """Share of the views that are mirrored."""


class PadAndRandomCrop(Config):
    """Pad every side by reflection, then crop back to size at a random place."""

    kind: Literal["pad_and_random_crop"] = "pad_and_random_crop"
    padding: int = Field(4, ge=1, le=2047)
    """Pixels added on each side."""


class RandomResizedCrop(Config):
    """Crop a random area and aspect ratio, then resize it to the view's size."""

    kind: Literal["random_resized_crop"] = "random_resized_crop"
    min_area: float = Field(0.6, ge=1e-6, le=1.0)
    """Smallest share of the image's area that is kept."""
    max_aspect_ratio: float = Field(4 / 3, ge=1.0, le=100.0)
    """Aspect ratios, relative to the image's own, are drawn from [1 / this, this],
    log-uniformly."""


class ColorJitter(Config):
    """Change brightness, contrast and saturation by random factors, in that order."""

    kind: Literal["color_jitter"] = "color_jitter"
    brightness: float = Field(0.2, ge=0.0, le=1.0)
    """The factor is drawn from [1 - this, 1 + this]."""
    contrast: float = Field(0.2, ge=0.0, le=1.0)
    """The factor is drawn likewise, and applied about each channel's mean."""
    saturation: float = Field(0.2, ge=0.0, le=1.0)
    """The factor is drawn likewise, and applied to the saturation in HSV."""


class Rotation(Config):
    """Rotate about the centre; areas outside the image are filled by reflection."""

    kind: Literal["rotation"] = "rotation"
    max_degrees: float = Field(15.0, ge=0.0, le=180.0)
    """The angle is drawn from [-this, this]."""


class Cutout(Config):
    """Overwrite a random rectangle (cutout, also called random erasing)."""

    kind: Literal["cutout"] = "cutout"
    probability: float = Field(1.0, ge=0.0, le=1.0)
    """Share of the views that lose a rectangle."""
    min_area: float = Field(0.02, ge=1e-6, lt=1.0)
    """Smallest share of the view's area that is overwritten."""
    max_area: float = Field(0.15, ge=1e-6, lt=1.0)
    """Largest share of the view's area that is overwritten."""
    fill: Literal["gray", "noise"] = "gray"
    """What it is overwritten with: one gray, or random colours."""

    @model_validator(mode="after")
    def _order_areas(self) -> "Cutout":
        if self.min_area > self.max_area:
            raise ValueError("min_area must not exceed max_area")
        return self


Augmentation = Annotated[
    Flip | PadAndRandomCrop | RandomResizedCrop | ColorJitter | Rotation | Cutout,
    Field(discriminator="kind"),
]
