"""Where each op comes from: the user's line, the Keras layer, the part of training, its forward op.

TensorFlow knows the Python stack in which an op was made; the stack's frames know more: the layer
or loss that was running, and, while a gradient is made, the forward op it is the gradient of. An
op callback reads all of that while the program traces, and keeps it beside the dump.
"""

import functools
import json
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

import numpy as np

from headstart.debug.callsites import CallSite, calling_site, is_users
from headstart.debug.diagnosis import Phase
from headstart.debug.internals import private

ORIGINS_FILE = "headstart_origins.jsonl"
BAD_DATA = "bad data"
"""Marks, in that file, an eager tensor that no op made and that holds NaN or Inf."""
MAX_USER_LINES = 5
MAX_EAGER_ORIGINS = 200_000
"""Eager ops whose origin is kept, the latest: an eager loop runs without end."""

SITE = "_headstart_site"
COMPILE_SITE = "_headstart_compile_site"

OpKey = tuple[str, str]
"""A graph's id and an op's name in it; for an eager tensor ``EAGER`` and its id."""
EAGER = "eager"


@dataclass(frozen=True)
class Origin:
    """Where one op comes from.

    Args:
        lines: The user's lines that led to it, innermost first.
        layer: Path of the innermost Keras layer.
        owner: Class name of the innermost Keras object: layer, loss, metric or optimizer.
        site: Where the user made that object.
        is_users_code: Whether the innermost line of the user's runs inside that object, so that
            the op is the user's own and not the library's.
        phase: The part of training.
        forward: The op it is the gradient of.
    """

    lines: tuple[CallSite, ...] = ()
    layer: str | None = None
    owner: str | None = None
    site: CallSite | None = None
    is_users_code: bool = False
    phase: Phase = "forward"
    forward: OpKey | None = None

    @property
    def line(self) -> CallSite | None:
        """The line to name: the user's own op, or where the library's object was made."""
        if self.is_users_code or self.site is None:
            return self.lines[0] if self.lines else None
        return self.site

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "Origin":
        """Rebuild an origin from its JSON form."""
        site, forward = fields["site"], fields["forward"]
        return cls(
            **{
                **fields,
                "lines": tuple(CallSite(**line) for line in fields["lines"]),
                "site": None if site is None else CallSite(**site),
                "forward": None if forward is None else (forward[0], forward[1]),
            }
        )


def record_construction_sites() -> None:
    """Let every Keras object made from now on know which line of the user's made it."""
    import keras

    for kind in (private("KerasSaveable"), keras.callbacks.Callback):
        kind.__new__ = _noting_construction(kind)
    # Keras compiles a loaded model only where its compile is the base class's own.
    trainer = next(kind for kind in private("KerasTrainer").__mro__ if "compile" in vars(kind))
    compile_model = trainer.compile

    @functools.wraps(compile_model)
    def compile_and_note(model: Any, *args: Any, **kwargs: Any) -> Any:
        vars(model)[COMPILE_SITE] = calling_site()
        return compile_model(model, *args, **kwargs)

    trainer.compile = compile_and_note


def _noting_construction(kind: Any) -> Any:
    def construct(cls: type, *args: Any, **kwargs: Any) -> Any:
        make = super(kind, cls).__new__  # a mixin's may take arguments, object's must get none
        instance = make(cls) if make is object.__new__ else make(cls, *args, **kwargs)
        vars(instance)[SITE] = _construction_site()
        return instance

    return construct


def _construction_site() -> CallSite | None:
    """Return the user's line that makes an object, or that made the object which makes it.

    Keras makes losses, metrics and inner layers late: at the first call and not where the user
    asked for them.
    """
    for frame in _frames(sys._getframe(2)):
        if is_users(frame.f_code.co_filename):
            return CallSite(frame.f_code.co_filename, frame.f_lineno)
        attributes = getattr(_self_of(frame), "__dict__", {})
        site = attributes.get(SITE)
        if isinstance(site, CallSite) and COMPILE_SITE not in attributes:
            return site
    return None


class OriginRecorder:
    """Writes the origin of every op that is made or run in this thread.

    Args:
        folder: The dump's folder, where ``ORIGINS_FILE`` is written.
    """

    def __init__(self, folder: Path) -> None:
        self._file: TextIO = (folder / ORIGINS_FILE).open("w", encoding="utf-8")
        self._eager: deque[tuple[str, Origin]] = deque(maxlen=MAX_EAGER_ORIGINS)
        # Which op of a type took a tensor: gradients of some ops know no more of theirs.
        self._known: set[str] = set()
        self._takers: dict[tuple[str, str, str], OpKey] = {}

    def start(self) -> None:
        """Listen from now on; call it just before the dump is enabled.

        TensorFlow hands each callback what the one before returned, and tfdbg's returns None.
        """
        private("add_op_callback")(self._note)

    def flush(self) -> None:
        """Write what was noted of graphs so far; eager ops are kept until the end."""
        self._file.flush()

    def close(self) -> None:
        """Write what is left; origins of later ops are lost."""
        for tensor_id, origin in self._eager:
            self._write((EAGER, tensor_id), origin)
        self._eager.clear()
        self._file.flush()

    def _note(
        self,
        op_type: str,
        inputs: Any,
        attrs: Any,
        outputs: Any,
        op_name: str | None = None,
        graph: Any = None,
    ) -> Any:
        if not outputs and graph is None:
            return outputs
        if graph is None:
            key = (EAGER, str(outputs[0]._id))
            self._eager.append((key[1], self._origin()))
            self._note_data(inputs)
            self._known.update(str(tensor._id) for tensor in outputs)
        else:
            if op_type in ("Const", "Placeholder", "PlaceholderWithDefault"):
                op_name = outputs[0].name.split(":")[0]  # as tfdbg names them
            key = (_graph_id(graph), str(op_name))
            self._write(key, self._origin())
        if len(self._takers) >= MAX_EAGER_ORIGINS:
            self._takers.clear()
        self._takers.update({(str(op_type), *_tensor_id(tensor)): key for tensor in inputs})
        return outputs

    def _note_data(self, inputs: Any) -> None:
        """Look at tensors that no op made, once each: arrays of numpy have no op to be bad."""
        for tensor in inputs:
            tensor_id = str(tensor._id)
            if tensor_id in self._known or not tensor.dtype.is_floating:
                continue
            self._known.add(tensor_id)
            # numpy and not an op: an op in here would call back without end.
            if not np.isfinite(tensor.numpy().astype(np.float32)).all():
                self._file.write(json.dumps([EAGER, tensor_id, BAD_DATA]) + "\n")

    def _write(self, key: OpKey, origin: Origin) -> None:
        self._file.write(json.dumps([*key, asdict(origin)]) + "\n")

    def _origin(self) -> Origin:
        frames = list(_frames(sys._getframe(2)))
        owner_depth, owner = self._owner(frames)
        user_depth = next(
            (depth for depth, frame in enumerate(frames) if is_users(frame.f_code.co_filename)),
            len(frames),
        )
        gradient_depth, forward = self._forward_op(frames)
        if gradient_depth < min(user_depth, owner_depth):  # neither the user's code nor the layer's
            owner = None
        return Origin(
            lines=_user_lines(),
            layer=self._layer_path(frames),
            owner=None if owner is None else type(owner).__name__,
            site=None if owner is None else vars(owner).get(SITE),
            # The user's own layer is both: its frame is the user's code.
            is_users_code=user_depth < len(frames) and user_depth <= owner_depth,
            phase=_phase(owner, gradient_depth < len(frames), frames),
            # A gradient of the user's own (tf.custom_gradient) is at fault itself.
            forward=None if user_depth < gradient_depth else forward,
        )

    @staticmethod
    def _owner(frames: list[FrameType]) -> tuple[int, Any]:
        for depth, frame in enumerate(frames):
            found = _self_of(frame)
            if _is_kerass(found):
                return depth, found
        return len(frames), None

    def _forward_op(self, frames: list[FrameType]) -> tuple[int, OpKey | None]:
        """Return how deep the function that makes a gradient is, and the op it differentiates."""
        for depth, frame in enumerate(frames):
            if frame.f_code is private("gradient_function").__code__:
                names = frame.f_locals
                made = _tensors(names.get("outputs"))
                if made:
                    return depth, _made_by(made[0])
                taken = [(str(names["op_name"]), *_tensor_id(t)) for t in _tensors(names["inputs"])]
                known = (self._takers.get(key) for key in taken)
                return depth, next((key for key in known if key), None)
            if frame.f_code is private("gradients_helper").__code__:
                op = frame.f_locals.get("op")
                return depth, None if op is None else (_graph_id(op.graph), op.name)
        return len(frames), None

    @staticmethod
    def _layer_path(frames: list[FrameType]) -> str | None:
        for frame in frames:
            found = _self_of(frame)
            if _is_kerass(found) and hasattr(found, "get_weights"):
                return str(getattr(found, "path", None) or found.name)
        return None


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _is_kerass(candidate: Any) -> bool:
    """Tell whether an object is Keras's; ops run while Keras is still being imported, too."""
    module = sys.modules.get("keras.src.saving.keras_saveable")
    return isinstance(candidate, getattr(module, "KerasSaveable", ()))


def _self_of(frame: FrameType) -> Any:
    names = frame.f_code.co_varnames
    return frame.f_locals.get("self") if names and names[0] == "self" else None


def _tensors(listed: Any) -> list[Any]:
    """Return the tensors of a list in which TensorFlow leaves out what a gradient does not need."""
    return [item for item in listed or () if hasattr(item, "dtype") and hasattr(item, "shape")]


def _tensor_id(tensor: Any) -> tuple[str, str]:
    if hasattr(tensor, "numpy"):
        return EAGER, str(tensor._id)
    return _graph_id(tensor.graph), str(tensor.name)


def _made_by(tensor: Any) -> OpKey:
    graph, name = _tensor_id(tensor)
    return graph, name.split(":")[0]


def _phase(owner: Any, is_gradient: bool, frames: list[FrameType]) -> Phase:
    if is_gradient:
        return "backward"
    kinds = () if owner is None else tuple(base.__name__ for base in type(owner).__mro__)
    for kind, phase in _PHASE_OF_KIND.items():
        if kind in kinds:
            return phase
    if any("tensorflow/python/data/" in frame.f_code.co_filename for frame in frames):
        return "data"
    return "forward"


_PHASE_OF_KIND: dict[str, Phase] = {
    "BaseOptimizer": "optimizer",
    "Metric": "metric",
    "Loss": "loss",
}


def _user_lines() -> tuple[CallSite, ...]:
    """Return the user's lines on the stack, innermost first, as written before AutoGraph."""
    lines = [
        CallSite(frame.filename, frame.lineno)
        for frame in reversed(private("extract_stack")())
        if is_users(frame.filename)
    ]
    return tuple(lines[:MAX_USER_LINES])


def _graph_id(graph: Any) -> str:
    return str(private("dumping_state").dumping_callback._get_context_id(graph))


def read_origins(folder: Path) -> dict[OpKey, Origin]:
    """Read the origins kept beside a dump.

    Returns:
        The origin of each op; empty where the dump was not recorded by headstart.
    """
    return {
        (graph, op): Origin.from_dict(fields)
        for graph, op, fields in _records(folder)
        if fields != BAD_DATA
    }


def read_bad_data(folder: Path) -> list[str]:
    """Read which eager tensors that no op made held NaN or Inf.

    Returns:
        Ids of the tensors.
    """
    return [tensor_id for _, tensor_id, fields in _records(folder) if fields == BAD_DATA]


def _records(folder: Path) -> Iterator[tuple[str, str, Any]]:
    path = folder / ORIGINS_FILE
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            graph, op, fields = json.loads(line)
        except ValueError:  # the process was ended in the middle of a line
            return
        yield graph, op, fields
