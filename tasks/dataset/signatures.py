"""What a file is that is no image of a kind that is read: in words, with what to do about it."""

_KINDS: tuple[tuple[int, tuple[bytes, ...], str], ...] = (
    (0, (b"version https://",), "a Git LFS pointer (git lfs pull fetches the image itself)"),
    (4, (b"ftyphei", b"ftyphev", b"ftypmif1", b"ftypmsf1"), "a HEIC photo (convert it to JPEG)"),
    (4, (b"ftypcrx",), "a camera's raw file (develop it to JPEG or TIFF)"),
    (4, (b"ftyp",), "a video"),
    (8, (b"AVI ",), "a video"),
    (0, (b"\x1aE\xdf\xa3",), "a video"),
    (0, (b"\xff\x0a", b"\0\0\0\x0cJXL "), "a JPEG XL (convert it to PNG)"),
    (0, (b"8BPS",), "a Photoshop file (export it as PNG)"),
    (0, (b"\0\0\1\0",), "an icon (convert it to PNG)"),
    (0, (b"v/1\x01", b"#?RADIANCE", b"#?RGBE"), "a picture of high dynamic range (map its tones)"),
    (0, (b"DDS ", b"P7\n", b"\x01\xda"), "a picture in a rare format (convert it to PNG)"),
    (0, (b"%PDF",), "a PDF"),
    (0, (b"%!PS", b"\xc5\xd0\xd3\xc6"), "a PostScript drawing (convert it to PNG)"),
    (0, (b"PK\3\4", b"\x1f\x8b", b"Rar!", b"7z\xbc\xaf", b"BZh", b"\xfd7zXZ"), "an archive"),
    (0, (b"\x93NUMPY", b"\x89HDF"), "an array (save it as PNG)"),
    (0, (b"bplist00",), "a property list of macOS"),
    (
        0,
        (bytes(16),),
        "zeros at its beginning, like a broken copy or a DICOM file (convert the latter)",
    ),
)
"""Offset, bytes there, and what such a file is."""
_MARKUP = (
    ((b"<svg",), "an SVG drawing (convert it to PNG)"),
    ((b"<!doctype html", b"<html", b"<head"), "a web page, as from a failed download"),
    ((b"<?xml", b"<"), "XML or HTML"),
)


def what_else(prefix: bytes) -> str:
    """Say what a file is that is no image of a kind that is read.

    Args:
        prefix: Its first 16 bytes, or fewer where it is shorter.

    Returns:
        A few words, such as "a web page, as from a failed download"; empty where unknown.
    """
    for offset, starts, words in _KINDS:
        if prefix[offset:].startswith(starts):
            return words
    text = prefix.removeprefix(b"\xef\xbb\xbf").strip().lower()
    for starts, words in _MARKUP:
        if text.startswith(starts):
            return words
    return "text" if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in prefix) else ""
