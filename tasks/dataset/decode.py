"""Image bytes to pixels, with Pillow alone: every format and pixel layout becomes RGB uint8.

For JPEG the pixels are bit-identical to ``tf.io.decode_jpeg(dct_method="INTEGER_ACCURATE")``
(both are libjpeg-turbo's accurate integer DCT), and 8-bit PNG is lossless in both; exported
models decode with TensorFlow and rely on that, and a test holds it.

Colour profiles are not applied: TensorFlow's decoders do not apply them either.
"""

import contextlib
import io
import os
import threading
from collections.abc import Callable, Iterator
from typing import BinaryIO, Literal, NamedTuple, TypeVar, get_args

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
from headstart.tasks.dataset.decoder_notes import hearing, in_words, note
from headstart.tasks.dataset.signatures import what_else

DECODER_VERSION = 1
"""Bump by hand when the same file gives other pixels; it is in the key of every view."""
ACCEPTS_VERSION = 3
"""Bump by hand when other files become decodable: what was refused before is looked at again."""

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "JPEG2000", "AVIF")
"""What is read. Not all that Pillow knows: EPS would start Ghostscript on a stranger's file,
and formats without a signature (TGA) take any bytes for an image."""

NOT_AN_IMAGE = (
    "not an image in a supported format (JPEG, PNG, GIF, WebP, TIFF, BMP, PPM, JPEG 2000, AVIF)"
)
"""The reason told for bytes without a signature of `FORMATS`."""

Pixels = NDArray[np.uint8]
Result = TypeVar("Result")

BAND_PIXELS = 2**22
"""Pixels converted at a time: an image's own memory and the result's are taken, and no third."""
BYTES_A_PIXEL, SPARE_BYTES = 8, 2**26
"""Of the largest file that is read: 16-bit colour with transparency, uncompressed, and 64 MiB for
profiles, thumbnails and text."""
HEADER_FIRST_BYTES = 2**22
"""Files larger than this are judged by their header before they are read."""
DECODING_SHARE, DECODING_BYTES_A_PIXEL, MIN_DECODING_PIXELS = 1 / 32, 10, 2**27
"""Threads decode at once what takes this share of the machine's memory, and a large image at the
least: Pillow takes 4 bytes a pixel, the array 3, and what is made of it as many again."""
_READ_WHOLE = {"WEBP", "AVIF"}
"""Formats whose header Pillow does not read without all the rest."""

PREFIX_BYTES = 16
"""How many leading bytes Pillow's signature checks look at."""

Flaw = Literal["zero_byte", "not_an_image", "too_large", "truncated", "corrupt", "pixel_type"]
"""Why bytes are not a usable image."""

_EXIF_ORIENTATION = 0x0112
_UPRIGHT: dict[int, Callable[[Pixels], Pixels]] = {
    # EXIF 2.32, section 4.6.4: where row 0 and column 0 lie, and what undoes it.
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: np.rot90(pixels, 3),
    7: lambda pixels: pixels[::-1, ::-1].transpose(1, 0, 2),
    8: lambda pixels: np.rot90(pixels),
}
_TIFF_BITS_PER_SAMPLE, _TIFF_PHOTOMETRIC, _TIFF_WHITE_IS_ZERO = 258, 262, 0  # TIFF 6.0, section 8
_TIFF_SUBFILE, _REDUCED = 254, 1
"""The tag, and its bit of a picture that is a smaller copy of another: what cameras' raw files
begin with."""
_DARK = 2**12
"""16-bit pixels below this came from 12 bits or fewer, and are near black by their high byte."""


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
            "an image cannot be decoded",
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
        notes: What the decoder complained of; empty for most files.
    """

    width: int
    height: int
    format: str
    notes: str = ""


def looks_like_image(prefix: bytes) -> bool:
    """Tell whether leading bytes carry the signature of a format that is read.

    Args:
        prefix: The first `PREFIX_BYTES` bytes of a file, or fewer where it is shorter.

    Returns:
        True where a decoder would take the file; it may still be damaged.
    """
    return _format_of(prefix) is not None


def read_image(stream: BinaryIO, max_pixels: int) -> bytes:
    """Read an image file whole, unless its beginning, its size or its header refuse it.

    So no more memory is taken than a usable image needs.

    Raises:
        UndecodableImage: It is empty, no image, or too large.
        OSError: It cannot be read.
    """
    prefix = stream.read(PREFIX_BYTES)
    if not prefix:
        raise UndecodableImage("the file is empty (0 bytes)", "zero_byte")
    name = _format_of(prefix)
    if name is None:
        raise _stranger(prefix)  # spares reading a stray video
    num_bytes = os.fstat(stream.fileno()).st_size
    most = BYTES_A_PIXEL * max_pixels + SPARE_BYTES
    if num_bytes > most:
        raise UndecodableImage(
            f"{num_bytes:,} bytes, more than the {most:,} that an image of dataset.max_pixels "
            f"({max_pixels:,}) may take",
            "too_large",
        )
    if num_bytes > HEADER_FIRST_BYTES and name not in _READ_WHOLE:
        size = (0, 0)
        stream.seek(0)
        with hearing(), contextlib.suppress(Exception):  # a full decode says what is wrong
            size = Image.OPEN[name][0](stream, "").size
        _refuse_bomb(size, max_pixels)
    stream.seek(0)
    return stream.read()


def decode_image(data: bytes, max_pixels: int) -> Pixels:
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
    return use_pixels(data, max_pixels, lambda pixels: pixels)


def use_pixels(data: bytes, max_pixels: int, use: Callable[[Pixels], Result]) -> Result:
    """Decode an image, as `decode_image` does, and use its pixels while their memory is counted.

    So threads that make something small of large images do not hold many of them at once.

    Raises:
        UndecodableImage: The bytes are no image that `decode_image` reads, or have too many pixels.
    """
    with hearing():
        return _decode(data, max_pixels, lambda pixels, _: use(pixels))


def inspect_image(data: bytes, max_pixels: int) -> ImageFacts:
    """Decode an image in full, as `decode_image` does, and keep only its size and format.

    Raises:
        UndecodableImage: The bytes are no image that `decode_image` reads, or have too many pixels.
    """
    with hearing() as notes:
        height, width, name = _decode(
            data, max_pixels, lambda pixels, name: (*pixels.shape[:2], name)
        )
    return ImageFacts(width, height, name, in_words(notes))


def _decode(data: bytes, max_pixels: int, use: Callable[[Pixels, str], Result]) -> Result:
    if not data:
        raise UndecodableImage("the file is empty (0 bytes)", "zero_byte")
    name = _format_of(data[:PREFIX_BYTES])
    if name is None:
        raise _stranger(data[:PREFIX_BYTES])
    with contextlib.ExitStack() as room:
        return use(_load(data, name, max_pixels, room), name)


def _load(data: bytes, name: str, max_pixels: int, room: contextlib.ExitStack) -> Pixels:
    try:
        pixels, turn = _pixels_and_turn(data, name, max_pixels, room)
    except (UndecodableImage, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UndecodableImage(f"decompression bomb ({error})", "too_large") from None
    except Exception as error:  # Pillow's plugins raise nearly every built-in class
        text = " ".join(str(error).split()) or type(error).__name__
        if name == "PNG" and "MAX_TEXT" in text and (lighter := _without_texts(data)) != data:
            room.close()
            return _load(lighter, name, max_pixels, room)
        if name == "AVIF" and b"hei" in data[8:64]:  # both say "mif1", a container
            raise _stranger(data[:PREFIX_BYTES]) from None
        if "unknown pixel mode" in text or "unknown data organization" in text:
            reason = f"{name} with an unsupported pixel layout ({text}); save it as RGB"
            raise UndecodableImage(reason, "pixel_type") from None
        if "truncated" in text.lower() or isinstance(error, EOFError):
            raise UndecodableImage(f"{name} file is cut short ({text})", "truncated") from None
        if text == "not identified by this driver":  # what Pillow says of an unreadable header
            text = "its header cannot be read"
        raise UndecodableImage(f"{name} file is damaged ({text})", "corrupt") from None
    # Pillow's own memory is free again by now.
    return pixels if turn is None else np.ascontiguousarray(turn(pixels))


def _pixels_and_turn(
    data: bytes, name: str, max_pixels: int, room: contextlib.ExitStack
) -> tuple[Pixels, Callable[[Pixels], Pixels] | None]:
    with _open(data, name) as image:
        _refuse_bomb(image.size, max_pixels)
        room.enter_context(_room.taken(image.width * image.height))
        image.load()
        _refuse_bomb(image.size, max_pixels)  # GIF frames may enlarge the canvas
        pixels = _rgb(image)
        if getattr(image, "tag_v2", {}).get(_TIFF_SUBFILE, 0) & _REDUCED:
            note(f"its first picture, {image.width} x {image.height}, is a thumbnail of another")
        try:
            # TIFF is turned by Pillow as it loads, and its tag is gone by now.
            turn = _UPRIGHT.get(image.getexif().get(_EXIF_ORIENTATION, 1))
        except Exception:  # damaged EXIF is no reason to lose a sound picture
            turn = None
        return pixels, turn


def _without_texts(data: bytes) -> bytes:
    """Take out of a PNG what Pillow refuses to unpack beyond 1 MB: texts and colour profiles.

    TensorFlow and viewers pass over them. XMP stays where it is short, as it may say which way
    is up.
    """
    view = memoryview(data)
    parts = [view[:8]]
    start = 8
    while start + 8 <= len(data):
        length, kind = int.from_bytes(view[start : start + 4], "big"), bytes(view[start + 4 :][:4])
        end = start + 12 + length
        chunk = view[start:end]
        is_xmp = kind == b"iTXt" and bytes(chunk[8:28]).startswith(b"XML:com.adobe.xmp\0\0")
        if kind not in (b"tEXt", b"zTXt", b"iTXt", b"iCCP") or (is_xmp and length < 2**20):
            parts.append(chunk)
        start = end
    return b"".join(parts)


class _Room:
    """Counts the pixels that threads decode at once; one image is always let in."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._num_pixels = 0

    @contextlib.contextmanager
    def taken(self, num_pixels: int) -> Iterator[None]:
        """Wait until an image fits in, and keep its place inside a with block."""
        most = _most_pixels_at_once()
        with self._changed:
            self._changed.wait_for(
                lambda: not self._num_pixels or self._num_pixels + num_pixels <= most
            )
            self._num_pixels += num_pixels
        try:
            yield
        finally:
            with self._changed:
                self._num_pixels -= num_pixels
                self._changed.notify_all()


_room = _Room()


def _most_pixels_at_once() -> int:
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(MIN_DECODING_PIXELS, int(memory_bytes * DECODING_SHARE / DECODING_BYTES_A_PIXEL))


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


def _stranger(prefix: bytes) -> UndecodableImage:
    words = what_else(prefix)
    return UndecodableImage(NOT_AN_IMAGE + (f"; it is {words}" if words else ""), "not_an_image")


def _refuse_bomb(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise UndecodableImage(
            f"{width:,} x {height:,} = {width * height:,} pixels, more than "
            f"dataset.max_pixels ({max_pixels:,})",
            "too_large",
        )


def _rgb(image: ImageFile.ImageFile) -> Pixels:
    if image.mode.startswith("I;16"):
        return _gray16_to_rgb(image)
    if image.mode in ("I", "F"):
        return _wide_gray_to_rgb(image)
    return _eight_bit_to_rgb(image)


def _eight_bit_to_rgb(image: ImageFile.ImageFile) -> Pixels:
    width, height = image.size
    num_rows = max(1, BAND_PIXELS // max(1, width))
    if num_rows >= height:
        return _band_to_rgb(image, image.has_transparency_data)
    is_transparent = image.has_transparency_data
    pixels = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, num_rows):
        bottom = min(top + num_rows, height)
        band = image.crop((0, top, width, bottom))
        pixels[top:bottom] = _band_to_rgb(band, is_transparent)
    return pixels


def _band_to_rgb(image: Image.Image, is_transparent: bool) -> Pixels:
    try:
        if not is_transparent:
            return np.array(image.convert("RGB"))
        rgba = image.convert("RGBA")
    except ValueError as error:
        raise UndecodableImage(f"pixel type {image.mode} ({error})", "pixel_type") from None
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return np.array(Image.alpha_composite(white, rgba).convert("RGB"))


def _gray16_to_rgb(image: ImageFile.ImageFile) -> Pixels:
    gray = np.array(image)
    tags = getattr(image, "tag_v2", {})
    num_bits = int(tags.get(_TIFF_BITS_PER_SAMPLE, (16,))[0])  # 12-bit scans come unscaled
    high = (gray >> (num_bits - 8)).astype(np.uint8)
    if num_bits == 16 and 0 < (most := int(gray.max(initial=0))) < _DARK:
        note(f"its 16-bit pixels reach {most} of 65,535, so it looks almost black; scale them")
    if tags.get(_TIFF_PHOTOMETRIC) == _TIFF_WHITE_IS_ZERO:  # Pillow inverts 8 bits, not 16
        high = 255 - high
    if isinstance(transparent := image.info.get("transparency"), int):
        high[gray == transparent] = 255
    return np.repeat(high[..., np.newaxis], 3, axis=-1)


def _wide_gray_to_rgb(image: ImageFile.ImageFile) -> Pixels:
    if image.mode == "I" and image.format == "PPM":  # a 16-bit PGM: Pillow scales it to 65,535
        high = (np.array(image) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(high[..., np.newaxis], 3, axis=-1)
    kind = "32-bit float" if image.mode == "F" else "signed or 32-bit integer"
    raise UndecodableImage(
        f"{kind} pixels have no fixed black and white; save it with 8 or 16 bits", "pixel_type"
    )
