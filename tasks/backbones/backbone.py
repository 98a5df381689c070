"""Backbones: frozen networks that turn images into bottlenecks.

`load_backbone` gives every network the same shape: RGB pixels, preprocessing, a functional
model up to its pooled top, and the cuts where it may be divided. Names come from
`headstart.tasks.backbones.table`; files of the user's own from `headstart.tasks.backbones.files`.
"""

import difflib
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from headstart.config import BackboneConfig
from headstart.errors import BackboneError
from headstart.tasks.backbones.builders import build_backbone, build_imagenet_classifier
from headstart.tasks.backbones.copying import adapted_normalisations, copy_weights
from headstart.tasks.backbones.cut_names import find_cut
from headstart.tasks.backbones.cuts import TOP, Cut, find_cuts
from headstart.tasks.backbones.files import load_backbone_file
from headstart.tasks.backbones.layer_graph import read_layer_graph
from headstart.tasks.backbones.preprocessing import Preprocessing
from headstart.tasks.backbones.table import BACKBONES, PreprocessingMode
from headstart.tasks.store.fingerprint import digest


class Backbone:
    """A frozen network, from RGB pixels to its pooled top, and where it may be cut.

    Attributes:
        name: Its name in the table, or the path of its file.
        image_size: Side of its input in pixels.
        preprocessing: From RGB pixels to the input of `model`.
        model: Functional model from preprocessed float32 [N, image_size, image_size, 3] to the
            pooled top [N, C]; frozen, so batch normalisation uses its stored statistics.
        cuts: In order from input to output; the last one is "top".
        notes: What a user should know about how a file was read; empty for the table's names.
    """

    def __init__(
        self,
        name: str,
        image_size: int,
        preprocessing: Preprocessing,
        model: Any,
        build_classifier: Callable[[], Any] | None = None,
        notes: tuple[str, ...] = (),
        content_digest: str | None = None,
    ) -> None:
        """Wrap a functional model.

        Args:
            name: Its name in the table, or the path of its file.
            image_size: Side of its input in pixels.
            preprocessing: From RGB pixels to the model's input.
            model: The functional model, up to the pooled top; frozen here.
            build_classifier: Builds the network with its ImageNet logits, where there is one.
            notes: What a user should know about how a file was read.
            content_digest: Stands for graph and weights where the model's layers hide them.
        """
        _set_trainable(model, False)
        self.name = name
        self.image_size = image_size
        self.preprocessing = preprocessing
        self.model = model
        self.notes = notes
        self._graph = read_layer_graph(model)
        self.cuts: tuple[Cut, ...] = find_cuts(model, self._graph)
        self._build_classifier = build_classifier
        self._content_digest = content_digest
        self._digests: dict[str, tuple[str, str]] = {}

    @property
    def has_classifier(self) -> bool:
        """Whether `classifier` has one to build."""
        return self._build_classifier is not None

    def classifier(self) -> Any | None:
        """Build the network with the ImageNet logits it was trained for.

        Returns:
            A model from RGB pixels [N, image_size, image_size, 3] in [0, 255] to logits
            [N, 1000]; None where headstart has no weights for them (only the EfficientNet-Lite
            with pretrained weights have them).
        """
        if self._build_classifier is None:
            return None
        images = self._images()
        return keras.Model(images, self._build_classifier()(self.preprocessing(images)))

    def resolve_cut(self, name: str) -> Cut:
        """Find a cut by name.

        Args:
            name: "top", or the name of a layer after which the backbone can be cut.

        Returns:
            The cut; the last layer's own name also means the top.

        Raises:
            BackboneError: There is no such cut; the message has the closest names.
        """
        return find_cut(self.name, self.cuts, name)

    def extractor(self, cut_names: Sequence[str], preprocess: bool = True) -> Any:
        """Build the model that computes bottlenecks, in one pass for all cuts.

        Its layers are this backbone's own, not copies.

        Args:
            cut_names: One or more names that `resolve_cut` knows.
            preprocess: Take RGB pixels; otherwise, what `preprocessing` gives.

        Returns:
            A model from a batch [N, image_size, image_size, 3] (float32; other number types,
            such as uint8, are cast) to a list of activations, float32, one a cut. Keras hands
            back a list of one as the bare tensor; `keras.tree.flatten` makes a list of either.

        Raises:
            BackboneError: There is no such cut, or no name was given.
        """
        cuts = [self.resolve_cut(name) for name in cut_names]
        if not cuts:
            raise BackboneError("an extractor needs at least one cut", "none", "name a cut")
        features = keras.Model(self.model.inputs, [self._tensor(cut) for cut in cuts])
        if not preprocess:
            return features
        images = self._images()
        activations = features(self.preprocessing(images))
        return keras.Model(images, keras.tree.flatten(activations))

    def tail(self, cut_name: str, batch_norm_training: bool = False) -> Any:
        """Copy what lies behind a cut, for training.

        Batch normalisation is not trainable, which in Keras also keeps it in inference mode: it
        goes on using the statistics of the backbone's own training data, as it does in the
        frozen backbone, whatever `fit` asks for. That makes training from the cache equal to
        training through the backbone, and small batches harmless.

        Args:
            cut_name: A name that `resolve_cut` knows.
            batch_norm_training: Let batch normalisation train, and use and update batch
                statistics while training.

        Returns:
            A model from the activation at the cut [N, *activation_shape] to the pooled top
            [N, C], with variables of its own that start from the backbone's weights; the
            identity for "top".

        Raises:
            BackboneError: There is no such cut.
        """
        cut = self.resolve_cut(cut_name)
        activation = keras.Input(cut.activation_shape, name="bottleneck")
        if cut.name == TOP:
            return keras.Model(activation, keras.layers.Identity(name="tail_top")(activation))

        source = keras.Model(self._tensor(cut), self.model.outputs[0], name="tail")
        tail = keras.models.clone_model(source, input_tensors=activation)
        for layer in tail.layers:
            if layer.weights:
                copy_weights(layer, self.model.get_layer(layer.name))
        _set_trainable(tail, True)
        if not batch_norm_training:
            freeze_batch_normalisation(tail)
        return tail

    def fingerprint(self, cut_name: str) -> dict[str, Any]:
        """Describe all that decides the activations at a cut, and nothing else.

        Returns:
            JSON values: digests of the sub-graph up to the cut and of exactly its weights,
            preprocessing and image size. Weights behind the cut, names of layers, initialisers
            and whether layers train do not change it.

        Raises:
            BackboneError: There is no such cut.
        """
        cut = self.resolve_cut(cut_name)
        graph, weights = self._digest_up_to(cut)
        return {
            "graph": graph,
            "weights": weights,
            "preprocessing": self.preprocessing.mode,
            "image_size": self.image_size,
        }

    def training_fingerprint(self) -> dict[str, Any]:
        """Describe all that decides how copies of this backbone's layers train.

        Returns:
            JSON values: the `fingerprint` of the top, and a digest of the layers' regularisers
            and constraints, which a frozen network does not read.
        """
        penalties = [call.penalties for call in self._graph.calls]
        return {**self.fingerprint(TOP), "penalties": digest(penalties)}

    def _digest_up_to(self, cut: Cut) -> tuple[str, str]:
        """Digest the sub-graph up to a cut, and its weights, which stay as they are: frozen."""
        if cut.name not in self._digests:
            self._digests[cut.name] = self._compute_digests(cut)
        return self._digests[cut.name]

    def _compute_digests(self, cut: Cut) -> tuple[str, str]:
        if self._content_digest is not None:
            return cut.layer, self._content_digest
        graph, weights = hashlib.sha256(), hashlib.sha256()
        ancestors = self._graph.ancestors(self._position(cut))
        renumbered = {position: number for number, position in enumerate(ancestors)}
        for position, number in renumbered.items():
            call = self._graph.calls[position]
            parents = ",".join(str(renumbered[parent]) for parent in call.parents)
            graph.update(f"{call.signature}({parents});".encode())
            for weight in getattr(call.operation, "weights", ()):
                values = np.ascontiguousarray(weight)
                weights.update(f"{number}:{values.dtype}{values.shape}".encode())
                weights.update(values.tobytes())
            for layer in adapted_normalisations(call.operation):
                # It computes with these: rows of a copy that had not made them anew must miss.
                for constant in (layer.mean, layer.variance):
                    weights.update(np.ascontiguousarray(constant).tobytes())
        return graph.hexdigest(), weights.hexdigest()

    def _images(self) -> Any:
        return keras.Input((self.image_size, self.image_size, 3), name="images")

    def _position(self, cut: Cut) -> int:
        names = [call.name for call in self._graph.calls]
        return len(names) - 1 if cut.name == TOP else names.index(cut.layer)

    def _tensor(self, cut: Cut) -> Any:
        if cut.name == TOP:
            return self.model.outputs[0]
        return self._graph.calls[self._position(cut)].operation.output


def load_backbone(config: BackboneConfig, image_size: int | None = None) -> Backbone:
    """Load a backbone by name or from a file.

    Args:
        config: Name, weights, seed and preprocessing.
        image_size: Side of its input in pixels; its own input size where not given.

    Raises:
        BackboneError: No such name or file, or the weights or the size cannot be used.
    """
    entry = BACKBONES.get(config.name)
    if entry is None:
        return _load_file(config, image_size)
    size = image_size or entry.image_size
    return Backbone(
        entry.name,
        size,
        _choose_preprocessing(config, entry.preprocessing),
        build_backbone(entry, config.weights, config.seed, size),
        build_imagenet_classifier(entry, config.weights, size),
    )


def _load_file(config: BackboneConfig, image_size: int | None) -> Backbone:
    path = Path(config.name)
    if not path.exists() and not path.suffix and len(path.parts) == 1:
        close = difflib.get_close_matches(config.name, BACKBONES, n=3, cutoff=0.4)
        raise BackboneError(
            "unknown backbone: expected a known name, or the path of a .keras file or SavedModel",
            f"{config.name!r}" + (f"; did you mean {' or '.join(close)}?" if close else ""),
            "`headstart backbones` lists the names",
        )
    if config.weights != "pretrained":
        raise BackboneError(
            "backbone.weights was set for a backbone from a file, which brings its own weights",
            f"backbone.weights={config.weights!r} with {config.name}",
            "leave backbone.weights out",
        )
    loaded = load_backbone_file(path, image_size)
    return Backbone(
        config.name,
        loaded.image_size,
        _choose_preprocessing(config, "none"),
        loaded.model,
        notes=loaded.notes,
        content_digest=loaded.content_digest,
    )


def _choose_preprocessing(config: BackboneConfig, usual: PreprocessingMode) -> Preprocessing:
    return Preprocessing(usual if config.preprocessing == "auto" else config.preprocessing)


def _set_trainable(model: Any, trainable: bool) -> None:
    # Setting an attribute to the value it has is a no-op in TensorFlow's tracking, and would
    # not reach layers that differ from the model around them; so it is set to the other first.
    model.trainable = not trainable
    model.trainable = trainable


def freeze_batch_normalisation(layer: Any) -> None:
    """Have a layer, and all within it, normalise by the statistics that it has."""
    # Not training=False in the call: Model.fit overrides it (Keras 3.15, Functional.call).
    if isinstance(layer, keras.layers.BatchNormalization):
        layer.trainable = False
    for inner in getattr(layer, "layers", ()):
        freeze_batch_normalisation(inner)
