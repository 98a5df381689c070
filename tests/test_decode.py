"""Bytes to pixels: every pixel layout, and every kind of file that is not an image."""

import io
import pickle
import struct
import subprocess
import sys
import time
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from headstart.tasks.dataset import decode
from headstart.tasks.dataset.decode import (
    UndecodableImage,
    decode_image,
    inspect_image,
    looks_like_image,
    read_image,
    use_pixels,
)

MAX_PIXELS = 1_000_000


def photo(height=23, width=37, seed=0):
    """Smooth colour and some noise, so that JPEG has both low and high frequencies."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    base = np.stack([x * 6, y * 9, (x + y) * 4], axis=-1)
    return ((base + random.integers(0, 40, base.shape)) % 256).astype(np.uint8)


def encode(image, format, **options):
    buffer = io.BytesIO()
    if not isinstance(image, Image.Image):
        image = Image.fromarray(image)
    image.save(buffer, format, **options)
    return buffer.getvalue()


def png_chunk(name, body):
    check = zlib.crc32(name + body)
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", check)


def raw_png(samples, colour_type, bits, width=None, height=None, extra=b""):
    """A PNG written by hand from [H, W, channels] samples; the header may lie about the size."""
    size = (width or samples.shape[1], height or samples.shape[0])
    header = struct.pack(">IIBBBBB", *size, bits, colour_type, 0, 0, 0)
    lines = b"".join(b"\0" + line.tobytes() for line in samples)
    body = png_chunk(b"IHDR", header) + extra + png_chunk(b"IDAT", zlib.compress(lines))
    return b"\x89PNG\r\n\x1a\n" + body + png_chunk(b"IEND", b"")


def tiff16(gray, photometric=1, bits=16, width=None):
    """A little-endian, uncompressed one-strip TIFF written by hand."""
    height, width = gray.shape[0], width or gray.shape[1]
    pixels = gray.tobytes()
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric)]
    tags += [(273, 8), (277, 1), (278, height), (279, len(pixels))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    directory = struct.pack("<H", len(tags)) + entries + b"\0\0\0\0"
    return b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels + directory


def flaw_of(data, max_pixels=MAX_PIXELS):
    with pytest.raises(UndecodableImage) as caught:
        decode_image(data, max_pixels)
    return caught.value.flaw


@pytest.mark.parametrize("quality", [60, 95])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_jpeg_pixels_equal_tensorflows_accurate_decoder(quality, subsampling):
    data = encode(photo(), "JPEG", quality=quality, subsampling=subsampling)
    expected = tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE").numpy()
    np.testing.assert_array_equal(decode_image(data, MAX_PIXELS), expected)


def test_progressive_jpeg_pixels_equal_tensorflows():
    data = encode(photo(64, 50), "JPEG", progressive=True)
    expected = tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE").numpy()
    np.testing.assert_array_equal(decode_image(data, MAX_PIXELS), expected)


def test_gray_jpeg_pixels_equal_tensorflows():
    data = encode(photo()[..., 0], "JPEG")
    expected = tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE").numpy()
    np.testing.assert_array_equal(decode_image(data, MAX_PIXELS), expected)


def test_rgb_png_pixels_equal_tensorflows():
    data = encode(photo(), "PNG")
    np.testing.assert_array_equal(
        decode_image(data, MAX_PIXELS), tf.io.decode_png(data, channels=3).numpy()
    )


def test_gray_and_palette_png_pixels_equal_tensorflows():
    for image in (Image.fromarray(photo()).convert("L"), Image.fromarray(photo()).quantize(16)):
        data = encode(image, "PNG")
        np.testing.assert_array_equal(
            decode_image(data, MAX_PIXELS), tf.io.decode_png(data, channels=3).numpy()
        )


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bit_gray_keeps_its_high_byte(format):
    gray = np.linspace(0, 65535, 20 * 13).astype(np.uint16).reshape(13, 20)
    pixels = decode_image(encode(gray, format), MAX_PIXELS)
    np.testing.assert_array_equal(pixels, np.repeat((gray >> 8)[..., None], 3, axis=-1))
    assert pixels.min() == 0
    assert pixels.max() == 255


def test_16_bit_gray_png_equals_tensorflows():
    gray = np.linspace(0, 65535, 20 * 13).astype(np.uint16).reshape(13, 20)
    data = encode(gray, "PNG")
    np.testing.assert_array_equal(
        decode_image(data, MAX_PIXELS), tf.io.decode_png(data, channels=3).numpy()
    )


def test_12_bit_tiff_is_scaled_by_its_own_range():
    packed = np.array([[0x00, 0x0F, 0xFF, 0x80, 0x08, 0x00]], np.uint8)  # 0, 4095, 2048, 2048
    data = tiff16(packed, bits=12, width=4)
    assert decode_image(data, MAX_PIXELS)[0, :, 0].tolist() == [0, 255, 128, 128]


@pytest.mark.parametrize("colour_type", [2, 4, 6])
def test_16_bit_colour_and_alpha_png_keep_their_high_bytes(colour_type):
    num_channels = {2: 3, 4: 2, 6: 4}[colour_type]
    samples = np.random.default_rng(1).integers(0, 65536, (3, 4, num_channels)).astype(">u2")
    if colour_type != 2:
        samples[..., -1] = 65535
    pixels = decode_image(raw_png(samples, colour_type, bits=16), MAX_PIXELS)
    high = (samples >> 8).astype(np.uint8)
    expected = np.repeat(high[..., :1], 3, axis=-1) if colour_type == 4 else high[..., :3]
    np.testing.assert_array_equal(pixels, expected)


def test_16_bit_tiff_whose_zero_is_white_is_inverted():
    gray = np.array([[0, 65535]], np.uint16)
    assert decode_image(tiff16(gray, photometric=0), MAX_PIXELS)[0, :, 0].tolist() == [255, 0]


def test_16_bit_pgm_is_scaled():
    gray = np.array([[0, 32768, 65535]], ">u2")
    data = b"P5 3 1 65535\n" + gray.tobytes()
    assert decode_image(data, MAX_PIXELS)[0, :, 0].tolist() == [0, 128, 255]


def test_one_bit_image_becomes_black_and_white():
    bits = np.array([[True, False, True]])
    assert decode_image(encode(bits, "PNG"), MAX_PIXELS)[0, :, 1].tolist() == [255, 0, 255]


def test_alpha_is_composited_on_white():
    rgba = np.array([[[200, 0, 0, 255], [200, 0, 0, 0], [0, 0, 0, 128]]], np.uint8)
    expected = [[[200, 0, 0], [255, 255, 255], [127, 127, 127]]]
    assert decode_image(encode(rgba, "PNG"), MAX_PIXELS).tolist() == expected


def test_gray_with_alpha_is_composited_on_white():
    image = Image.fromarray(np.array([[[10, 255], [10, 0]]], np.uint8), "LA")
    assert decode_image(encode(image, "PNG"), MAX_PIXELS)[0, :, 0].tolist() == [10, 255]


def test_transparent_palette_entry_becomes_white():
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 0, 9, 8, 7])
    image.putdata([0, 1])
    for transparency in (0, b"\x00\xff"):
        data = encode(image, "PNG", transparency=transparency)
        assert decode_image(data, MAX_PIXELS).tolist() == [[[255, 255, 255], [9, 8, 7]]]


def test_transparent_gray_and_colour_keys_become_white():
    gray16 = encode(np.array([[700, 65535]], np.uint16), "PNG", transparency=700)
    assert decode_image(gray16, MAX_PIXELS)[0, :, 0].tolist() == [255, 255]
    rgb = np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8)
    keyed = encode(rgb, "PNG", transparency=(1, 2, 3))
    assert decode_image(keyed, MAX_PIXELS).tolist() == [[[255, 255, 255], [4, 5, 6]]]
    rgb16 = np.array([[[0x0101, 0x0202, 0x0303], [0x0404, 0x0505, 0x0606]]], ">u2")
    key = png_chunk(b"tRNS", struct.pack(">HHH", 0x0101, 0x0202, 0x0303))
    keyed16 = raw_png(rgb16, 2, bits=16, extra=key)
    assert decode_image(keyed16, MAX_PIXELS).tolist() == [[[255, 255, 255], [4, 5, 6]]]


def test_cmyk_jpeg_gives_the_colours_it_was_made_from():
    red = Image.new("RGB", (16, 16), (250, 10, 20))
    data = encode(red.convert("CMYK"), "JPEG", quality=100)
    pixels = decode_image(data, MAX_PIXELS)
    assert np.abs(pixels.astype(int) - (250, 10, 20)).max() <= 4


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied_once(format, orientation):
    stored = Image.fromarray(np.kron([[10, 90, 170], [50, 130, 250]], np.ones((16, 16))) // 1 % 256)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100}}.get(format, {})
    pixels = decode_image(encode(stored.convert("L"), format, exif=exif, **options), MAX_PIXELS)
    grid = np.array([[10, 90, 170], [50, 130, 250]])
    upright = {
        1: grid,
        2: grid[:, ::-1],
        3: grid[::-1, ::-1],
        4: grid[::-1],
        5: grid.T,
        6: np.rot90(grid, -1),
        7: grid[::-1, ::-1].T,
        8: np.rot90(grid),
    }[orientation]
    np.testing.assert_allclose(pixels[8::16, 8::16, 0], upright, atol=2)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
def test_damaged_exif_does_not_lose_the_picture():
    data = encode(photo(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff" + bytes(9))
    assert decode_image(data, MAX_PIXELS).shape == (23, 37, 3)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "TIFF"])
def test_first_frame_of_several_is_used(format):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    options = {"lossless": True} if format == "WEBP" else {}
    data = encode(frames[0], format, save_all=True, append_images=frames[1:], **options)
    assert decode_image(data, MAX_PIXELS)[4, 4].tolist() == [255, 0, 0]


@pytest.mark.parametrize("format", ["BMP", "PPM", "WEBP", "TIFF", "GIF", "AVIF", "JPEG2000"])
def test_other_formats_give_upright_rgb(format):
    data = encode(photo(), format)
    pixels = decode_image(data, MAX_PIXELS)
    assert pixels.shape == (23, 37, 3)
    assert pixels.dtype == np.uint8
    assert inspect_image(data, MAX_PIXELS) == (37, 23, format, "")


def test_result_can_be_written_to():
    for image in (photo(), photo()[..., 0]):
        assert decode_image(encode(image, "PNG"), MAX_PIXELS).flags.writeable


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pixels_without_a_fixed_range_are_refused(mode):
    data = encode(Image.new(mode, (4, 4)), "TIFF")
    with pytest.raises(UndecodableImage, match="no fixed black and white") as caught:
        decode_image(data, MAX_PIXELS)
    assert caught.value.flaw == "pixel_type"


def test_empty_bytes_are_named_as_such():
    assert flaw_of(b"") == "zero_byte"


@pytest.mark.parametrize(
    "data", [b"P", b"hello, world", b"%PDF-1.4 ", b"\0" * 64, b"%!PS-Adobe-3.0 EPSF-3.0\n"]
)
def test_other_files_are_not_images(data):
    assert not looks_like_image(data[:16])
    assert flaw_of(data) == "not_an_image"


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"])
def test_half_a_file_is_refused(format):
    data = encode(photo(60, 60), format)
    assert flaw_of(data[: len(data) // 2]) in ("truncated", "corrupt")


def test_jpeg_and_png_cut_short_are_called_truncated():
    for format in ("JPEG", "PNG"):
        data = encode(photo(60, 60), format)
        assert flaw_of(data[: len(data) // 2]) == "truncated"


def test_signature_alone_is_refused():
    for format in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"):
        data = encode(photo(), format)
        assert looks_like_image(data[:16])
        assert flaw_of(data[:16]) in ("truncated", "corrupt")


def test_a_header_that_cannot_be_read_is_called_so():
    with pytest.raises(UndecodableImage, match="its header cannot be read"):
        decode_image(b"\xff\xd8\xff", 100)


def test_flipped_byte_in_a_png_is_corrupt():
    data = bytearray(encode(photo(), "PNG"))
    data[len(data) // 2] ^= 0xFF
    assert flaw_of(bytes(data)) == "corrupt"


def test_bomb_is_refused_from_its_header():
    bomb = raw_png(np.zeros((9, 9, 3), np.uint8), 2, bits=8, width=60_000, height=60_000)
    with pytest.raises(UndecodableImage, match="60,000 x 60,000 = 3,600,000,000 pixels") as caught:
        decode_image(bomb, MAX_PIXELS)
    assert caught.value.flaw == "too_large"


def test_limit_is_the_largest_size_that_passes():
    data = encode(photo(10, 10), "PNG")
    assert decode_image(data, 100).shape == (10, 10, 3)
    assert flaw_of(data, 99) == "too_large"


def test_limit_may_exceed_pillows_own_without_touching_it(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    assert decode_image(encode(photo(10, 10), "PNG"), 100).shape == (10, 10, 3)
    assert Image.MAX_IMAGE_PIXELS == 20


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.sampled_from(["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "JPEG2000", "AVIF"]),
    st.lists(st.tuples(st.integers(0, 700), st.integers(0, 255)), max_size=4),
    st.integers(1, 700),
)
def test_any_bytes_decode_or_are_refused_in_words(format, changes, length):
    data = bytearray(encode(photo(8, 8), format)[:length])
    for place, value in changes:
        data[place % len(data)] = value
    try:
        result = decode_image(bytes(data), MAX_PIXELS)
    except UndecodableImage as error:
        result = error.reason
    if isinstance(result, str):
        assert result.isprintable()
        assert " at 0x" not in result  # the same bytes give the same words
    else:
        assert result.dtype == np.uint8
        assert result.ndim == 3


def test_error_survives_pickling():
    error = UndecodableImage("cut short", "truncated")
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.reason, copy.flaw, str(copy)) == ("cut short", "truncated", str(error))


def test_threads_give_the_same_pixels_as_one():
    files = [encode(photo(seed=seed), "PNG") for seed in range(16)]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda data: decode_image(data, MAX_PIXELS), files))
    for seed, pixels in enumerate(results):
        np.testing.assert_array_equal(pixels, photo(seed=seed))


@pytest.mark.parametrize("where", ["before", "after"])
@pytest.mark.parametrize(
    ("kind", "start"),
    [
        (b"zTXt", b"k\0\0"),
        (b"iTXt", b"k\0\1\0\0\0"),
        (b"iCCP", b"k\0\0"),
    ],
)
def test_a_png_with_long_texts_or_a_large_profile_is_a_sound_picture(kind, start, where):
    plain = raw_png(photo(), 2, bits=8)
    chunk = png_chunk(kind, start + zlib.compress(b"x" * 2_000_000))
    place = 33 if where == "before" else len(plain) - 12
    data = plain[:place] + chunk + plain[place:]
    np.testing.assert_array_equal(decode_image(data, MAX_PIXELS), photo())
    np.testing.assert_array_equal(tf.io.decode_png(data).numpy(), photo())


def test_many_texts_of_a_png_are_passed_over():
    plain = raw_png(photo(), 2, bits=8)
    texts = b"".join(png_chunk(b"tEXt", b"k\0" + b"x" * 2**20) for _ in range(70))
    np.testing.assert_array_equal(
        decode_image(plain[:33] + texts + plain[33:], MAX_PIXELS), photo()
    )


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "LA", "CMYK", "1", "YCbCr"])
def test_bands_give_the_pixels_of_the_whole(monkeypatch, mode):
    source = Image.fromarray(np.dstack([photo(), photo(seed=1)[..., :1]]))
    image = source.convert("RGB").convert(mode) if mode != "RGBA" else source
    options = {"transparency": 3} if mode == "P" else {}
    data = encode(image, "JPEG" if mode in ("CMYK", "YCbCr") else "PNG", **options)
    whole = decode_image(data, MAX_PIXELS)
    monkeypatch.setattr(decode, "BAND_PIXELS", 100)
    np.testing.assert_array_equal(decode_image(data, MAX_PIXELS), whole)


def test_what_a_decoder_complains_of_stays_with_its_file(capfd):
    exif = Image.Exif()
    exif[0x010E] = "a name"
    good = encode(photo(), "JPEG")
    odd = encode(photo(), "JPEG", exif=exif.tobytes()[:-9])
    tiff = bytearray(tiff16(np.zeros((4, 4), np.uint16)))
    tiff[12 + 32 : 12 + 34] = struct.pack("<H", 65_000)  # a tag that nobody knows
    with ThreadPoolExecutor(8) as pool:
        facts = list(pool.map(lambda data: inspect_image(data, MAX_PIXELS), [good, odd] * 20))
    assert {fact.notes for fact in facts[::2]} == {""}
    assert {bool(fact.notes) for fact in facts[1::2]} == {True}
    assert capfd.readouterr() == ("", "")


def test_libtiffs_own_words_are_caught(capfd):
    bits = Image.fromarray(photo(64, 64)).convert("1")
    data = bytearray(encode(bits, "TIFF", compression="group4"))
    data[40:48] = bytes(8)
    facts = inspect_image(bytes(data), MAX_PIXELS)
    assert "code word" in facts.notes
    decode_image(bytes(data), MAX_PIXELS)
    assert capfd.readouterr() == ("", "")


def test_what_pillow_logs_is_caught(capfd):
    data = bytearray(encode(photo(), "TIFF"))
    start = data.index(struct.pack("<HHI", 277, 3, 1)) + 8  # samples a pixel
    data[start : start + 2] = struct.pack("<H", 65_535)
    flaw_of(bytes(data))
    assert capfd.readouterr() == ("", "")


def test_threads_that_begin_together_leave_libtiff_one_handler():
    code = (
        "import gc, io, logging\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from PIL import Image\n"
        "from headstart.tasks.dataset.decode import inspect_image\n"
        "buffer = io.BytesIO()\n"
        "Image.effect_noise((64, 64), 90).convert('1').save(buffer, 'TIFF', compression='group4')\n"
        "data = bytearray(buffer.getvalue())\n"
        "data[40:48] = bytes(8)\n"
        "with ThreadPoolExecutor(16) as pool:\n"
        "    facts = list(pool.map(lambda _: inspect_image(bytes(data), 10**6), range(64)))\n"
        "gc.collect()\n"
        "assert len(facts) == 64\n"
        "assert len(logging.getLogger('PIL').handlers) == 1\n"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (made.returncode, made.stderr) == (0, "")


def sparse(path, head, size):
    with path.open("wb") as file:
        file.write(head)
        file.truncate(size)
    return path


def test_a_file_larger_than_any_usable_image_is_not_read(tmp_path, monkeypatch):
    path = sparse(tmp_path / "slide.tif", tiff16(np.zeros((4, 4), np.uint16)), 3 * 2**30)
    with path.open("rb") as file, pytest.raises(UndecodableImage, match="3,221,225,472 bytes"):
        read_image(file, 89_478_485)


def test_a_header_refuses_an_image_before_the_rest_is_read(tmp_path):
    head = raw_png(np.zeros((9, 9, 3), np.uint8), 2, bits=8, width=60_000, height=60_000)
    path = sparse(tmp_path / "map.png", head, 500 * 2**20)
    tracemalloc.start()
    try:
        with path.open("rb") as file, pytest.raises(UndecodableImage, match="60,000 x 60,000"):
            read_image(file, 89_478_485)
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


def test_threads_decode_no_more_pixels_at_once_than_there_is_room_for(monkeypatch):
    monkeypatch.setattr(decode, "_most_pixels_at_once", lambda: 2 * 23 * 37)
    data, inside, most = encode(photo(), "PNG"), [], []

    def use(pixels):
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.002)
        inside.pop()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: use_pixels(data, MAX_PIXELS, use), range(40)))
    assert max(most) <= 2


def test_an_image_larger_than_the_room_is_let_in_alone(monkeypatch):
    monkeypatch.setattr(decode, "_most_pixels_at_once", lambda: 1)
    assert decode_image(encode(photo(), "PNG"), MAX_PIXELS).shape == (23, 37, 3)
