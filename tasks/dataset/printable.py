"""Names that other people chose, made fit to stand in a line of a terminal or of a page."""

import unicodedata

_BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: str) -> str:
    """Escape what cannot be written as UTF-8 or would disturb the line it stands in.

    Args:
        text: A class name or path, maybe with undecodable bytes (lone surrogates, as
            `os.fsdecode` leaves them), control characters or bidirectional overrides.
    """
    if text.isprintable():  # none of those is, and an embedded picture is long
        return text
    return "".join(_escaped(character) for character in text)


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # os.fsdecode's mark of an undecodable byte
        return f"\\x{code - 0xDC00:02x}"
    if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or character in _BIDI_CONTROLS:
        return character.encode("unicode_escape", "surrogatepass").decode()
    return character
