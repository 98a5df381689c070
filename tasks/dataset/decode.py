"""Image bytes to pixels, with Pillow alone: every format and pixel layout becomes RGB uint8.

For JPEG the pixels are bit-identical to ``tf.io.decode_jpeg(dct_method="INTEGER_ACCURATE")``
(both are libjpeg-turbo's accurate integer DCT), and 8-bit PNG is lossless in both; exported
models decode with TensorFlow and rely on that, and a test holds it.

Colour profiles are not applied: TensorFlow's decoders do not apply them either.
"""

import io
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

# Imported by name, for their side effect: each registers itself with Pillow. Left to
# Image.open, that happens at the first image, where two threads can race and one of them
# takes a good WebP for an unknown file.
from PIL import (  # noqa: F401
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from headstart.errors import DatasetError

DECODER_VERSION = 1
"""Bump by hand when other files become decodable, or the same file gives other pixels."""

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "JPEG2000", "AVIF")
"""What is read. Not all that Pillow knows: EPS would start Ghostscript on a stranger's file,
and formats without a signature (TGA) take any bytes for an image."""

NOT_AN_IMAGE = (
    "not an image in a format that is read here "
    "(JPEG, PNG, GIF, WebP, TIFF, BMP, PPM, JPEG 2000, AVIF)"
)
"""The reason told for bytes without a signature of `FORMATS`."""

PREFIX_BYTES = 16
"""How many leading bytes Pillow's signature checks look at."""

Flaw = Literal["zero_byte", "not_an_image", "too_large", "truncated", "corrupt", "pixel_type"]
"""Why bytes are not a usable image."""

_EXIF_ORIENTATION = 0x0112
_UPRIGHT = {  # EXIF 2.32, section 4.6.4: where row 0 and column 0 lie, and what undoes it
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TIFF_BITS_PER_SAMPLE, _TIFF_PHOTOMETRIC, _TIFF_WHITE_IS_ZERO = 258, 262, 0  # TIFF 6.0, section 8


class UndecodableImage(DatasetError):  # noqa: N818 - it says what the image is
    """Bytes that are not a usable image.

    Args:
        reason: Why, in a few words that follow a file name and a colon.
        flaw: The kind of fault.
    """

    def __init__(self, reason: str, flaw: Flaw = "corrupt") -> None:
        assert flaw in get_args(Flaw)
        self.reason = reason
        self.flaw = flaw
        super().__init__(
            "An image that can be decoded was expected.",
            reason,
            "replace the file or remove it",
        )

    def __reduce__(self) -> tuple[type, tuple[str, Flaw]]:  # type: ignore[override]
        """Survive pickling between processes."""
        return type(self), (self.reason, self.flaw)


class ImageFacts(NamedTuple):
    """What a full decode found.

    Attributes:
        width: Pixels across, after EXIF orientation.
        height: Pixels down, after EXIF orientation.
        format: Pillow's name of the file format, such as "JPEG".
    """

    width: int
    height: int
    format: str


def looks_like_image(prefix: bytes) -> bool:
    """Tell whether leading bytes carry the signature of a format that is read.

    Args:
        prefix: The first `PREFIX_BYTES` bytes of a file, or fewer where it is shorter.

    Returns:
        True where a decoder would take the file; it may still be damaged.
    """
    return _format_of(prefix) is not None


def decode_image(data: bytes, max_pixels: int) -> NDArray[np.uint8]:
    """Decode the first frame of an encoded image to RGB, upright and on white.

    Transparent pixels are composited on white, the page that cut-outs, logos and drawings are
    looked at on; dropping the alpha channel instead would uncover whatever colour the encoder
    left beneath, most often black. 16-bit channels keep their high byte, as libpng and
    TensorFlow do, so gray and colour agree and nothing is clipped.

    Args:
        data: The bytes of the file.
        max_pixels: Images with more pixels are refused from their header, before memory is
            taken for them.

    Returns:
        uint8 array of shape [H, W, 3], RGB in [0, 255], writable.

    Raises:
        UndecodableImage: If the bytes are empty, damaged, not an image, too large, or of a pixel
            type without a fixed range (32-bit integer and float TIFF).
    """
    return _decode(data, max_pixels)[0]


def inspect_image(data: bytes, max_pixels: int) -> ImageFacts:
    """Decode an image in full, as `decode_image` does, and keep only its size and format.

    Args:
        data: The bytes of the file.
        max_pixels: Images with more pixels are refused.

    Returns:
        Size in pixels and format.

    Raises:
        UndecodableImage: As `decode_image`.
    """
    pixels, name = _decode(data, max_pixels)
    return ImageFacts(width=pixels.shape[1], height=pixels.shape[0], format=name)


def _decode(data: bytes, max_pixels: int) -> tuple[NDArray[np.uint8], str]:
    if not data:
        raise UndecodableImage("the file is empty (0 bytes)", "zero_byte")
    name = _format_of(data[:PREFIX_BYTES])
    if name is None:
        raise UndecodableImage(NOT_AN_IMAGE, "not_an_image")
    try:
        with _open(data, name) as image:
            _refuse_bomb(image.size, max_pixels)
            image.load()
            _refuse_bomb(image.size, max_pixels)  # GIF frames may enlarge the canvas
            return _upright_rgb(image), name
    except (UndecodableImage, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UndecodableImage(f"decompression bomb ({error})", "too_large") from None
    except Exception as error:  # Pillow's plugins raise nearly every built-in class
        text = " ".join(str(error).split()) or type(error).__name__
        if "truncated" in text.lower() or isinstance(error, EOFError):
            raise UndecodableImage(f"{name} file is cut short ({text})", "truncated") from None
        raise UndecodableImage(f"{name} file is damaged ({text})", "corrupt") from None


def _format_of(prefix: bytes) -> str | None:
    for name in FORMATS:
        accept = Image.OPEN[name][1] if name in Image.OPEN else None
        result = accept(prefix) if accept is not None else False
        if result and not isinstance(result, str):  # a string: Pillow was built without the codec
            return name
    return None


def _open(data: bytes, name: str) -> ImageFile.ImageFile:
    # Image.open would judge the size by Image.MAX_IMAGE_PIXELS and the warning filters, both
    # global to the process: other threads' too. The registered plugin reads the same header.
    factory = Image.OPEN[name][0]
    image = factory(io.BytesIO(data), "")
    assert isinstance(image, ImageFile.ImageFile)
    return image


def _refuse_bomb(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise UndecodableImage(
            f"{width:,} x {height:,} = {width * height:,} pixels, more than "
            f"dataset.max_pixels ({max_pixels:,})",
            "too_large",
        )


def _upright_rgb(image: ImageFile.ImageFile) -> NDArray[np.uint8]:
    if image.mode.startswith("I;16"):
        pixels = _gray16_to_rgb(image)
    elif image.mode in ("I", "F"):
        pixels = _wide_gray_to_rgb(image)
    else:
        pixels = _eight_bit_to_rgb(image)
    try:
        # TIFF is turned by Pillow as it loads, and its tag is gone by now.
        turn = _UPRIGHT.get(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # damaged EXIF is no reason to lose a sound picture
        turn = None
    return pixels if turn is None else np.array(Image.fromarray(pixels).transpose(turn))


def _eight_bit_to_rgb(image: ImageFile.ImageFile) -> NDArray[np.uint8]:
    try:
        if not image.has_transparency_data:
            return np.array(image.convert("RGB"))
        rgba = image.convert("RGBA")
    except ValueError as error:
        raise UndecodableImage(f"pixel type {image.mode} ({error})", "pixel_type") from None
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return np.array(Image.alpha_composite(white, rgba).convert("RGB"))


def _gray16_to_rgb(image: ImageFile.ImageFile) -> NDArray[np.uint8]:
    gray = np.array(image)
    tags = getattr(image, "tag_v2", {})
    num_bits = int(tags.get(_TIFF_BITS_PER_SAMPLE, (16,))[0])  # 12-bit scans come unscaled
    high = (gray >> (num_bits - 8)).astype(np.uint8)
    if tags.get(_TIFF_PHOTOMETRIC) == _TIFF_WHITE_IS_ZERO:  # Pillow inverts 8 bits, not 16
        high = 255 - high
    if isinstance(transparent := image.info.get("transparency"), int):
        high[gray == transparent] = 255
    return np.repeat(high[..., np.newaxis], 3, axis=-1)


def _wide_gray_to_rgb(image: ImageFile.ImageFile) -> NDArray[np.uint8]:
    if image.mode == "I" and image.format == "PPM":  # a 16-bit PGM: Pillow scales it to 65,535
        high = (np.array(image) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(high[..., np.newaxis], 3, axis=-1)
    kind = "32-bit float" if image.mode == "F" else "signed or 32-bit integer"
    raise UndecodableImage(
        f"{kind} pixels have no fixed black and white; save it with 8 or 16 bits", "pixel_type"
    )
