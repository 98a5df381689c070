"""The codecs' digest: it follows the pixels, not the version."""

import PIL
import pytest

from headstart.config import ViewsConfig
from headstart.tasks.dataset import codecs
from headstart.tasks.dataset.codecs import codecs_digest
from headstart.tasks.dataset.decode import UndecodableImage
from headstart.tasks.views.recipes import plain_recipe


@pytest.fixture(autouse=True)
def _forget() -> None:
    codecs_digest.cache_clear()


def test_another_version_with_the_same_pixels_has_the_same_digest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = codecs_digest()
    codecs_digest.cache_clear()
    monkeypatch.setattr(PIL, "__version__", "99.0")
    assert codecs_digest() == before


def test_one_other_pixel_changes_the_key_of_views(monkeypatch: pytest.MonkeyPatch) -> None:
    before = plain_recipe(ViewsConfig(), 8)
    codecs_digest.cache_clear()
    original = codecs.decode_image

    def decode(data: bytes, max_pixels: int) -> object:
        pixels = original(data, max_pixels)
        pixels[3, 3, 0] ^= 1
        return pixels

    monkeypatch.setattr(codecs, "decode_image", decode)
    after = plain_recipe(ViewsConfig(), 8)
    codecs_digest.cache_clear()
    assert {name for name in before if before[name] != after[name]} == {"codecs"}


def test_a_missing_codec_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(data: bytes, max_pixels: int) -> object:
        raise UndecodableImage("not an image in a supported format", "not_an_image")

    monkeypatch.setattr(codecs, "decode_image", refuse)
    digest = codecs_digest()
    codecs_digest.cache_clear()
    assert len(digest) == 64
