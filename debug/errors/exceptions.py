"""What TensorFlow raises in graph mode, in short: the symptom, the layer and the user's line.

The message of such an error is a page long and its traceback ends in ``model.fit``. The line is
found, in this order: by the op the message names, where its graph is still at hand; by the stack
the message quotes; by the traceback's own frames.
"""

import gc
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any

from headstart.debug.callsites import CallSite, find_escape, is_users
from headstart.debug.diagnosis import Diagnosis, Phase
from headstart.debug.dump.origins import COMPILE_SITE, SITE
from headstart.debug.errors.kinds import ExceptionPattern
from headstart.debug.errors.no_gradient import user_line
from headstart.debug.errors.patterns import PATTERNS
from headstart.debug.source.syntax import statement_at

MAX_DETAIL_CHARACTERS = 300
_NO_SUGGESTIONS: tuple[str, ...] = ()
_AT_RUNTIME: Phase = "runtime"

_LAYER_CALL = "keras/src/layers/layer.py"
_LOOPS = ("fit", "evaluate", "predict", "train_on_batch", "test_on_batch", "error_handler")
"""Functions of a model that run others: what fails in them is not the model as a layer."""
_OF_COMPILE = ("CompileLoss", "CompileMetrics")
_READ_COMPILE = ("build", "_build_nested", "_build_metrics_set")
"""Classes of Keras that hold what `compile` was given, and their methods that read it."""

_LEAKED = "was defined here:"

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_NODE = re.compile(r"\{\{node (?P<node>[^}]+)\}\}|Detected at node '?(?P<at>[\w./\-]+)'?")
_FUNCTION = re.compile(r"function_node (?P<function>[\w./\-]+)\}\}|\[Op:(?P<called>\w+)\]")
_QUOTED_LINE = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)')
_BOILERPLATE = re.compile(
    r"Could not automatically infer the output shape.*?Error encountered:\s*"
    r"|Exception encountered when calling [^\n]*\n"
    r"|(?:Call a|A)rguments received by .*"
    r"|(?:Detected at node|defined at \(most recent call last\))[^\n]*\n"
    r"|^\s*(?:File \"[^\n]*|<stack traces? unavailable>)\n?"
    r"|^in user code:\s*\n",
    re.DOTALL | re.MULTILINE,
)
_TOLD_OF_USERS_LINE = re.compile(
    r"^module 'tensorflow[\w.]*' has no attribute|^unhashable type: 'numpy.ndarray'"
)
"""What Python itself says of a user's line, and that belongs to this subject all the same."""
_AS_KEY = "unhashable type: 'numpy.ndarray'"
"""What Python says of an array in a set, too."""
_FEEDS = re.compile(r"feed|\.run\(")
_ROOT_ERRORS = re.compile(
    r"^[ \t]*\d+ root error\(s\) found\.?[ \t]*\n|^[ \t]*\(\d+\) ", re.MULTILINE
)
_PIPELINE = re.compile(
    r"Error in user-defined function passed to (?P<op>\w+?)(?:Dataset)?(?:V\d)?:?\d* "
    r"transformation with iterator: [^\s]+: "
)
"""Where in a pipeline it failed; what failed comes behind."""
_QUOTED_STACK = re.compile(r"^[ ]*File \"[^\n]*\n(?:[^\n]*\n)?", re.MULTILINE)
"""A line of a quoted stack with the line of code below it."""
_NOISE = ("Exception encountered when calling", "Graph execution error", "Arguments received by",
          "Stack trace for op definition", "Call arguments received", "Node: ",
          "Original stack trace")  # fmt: skip

_PACKAGE = re.compile(r"(?:site|dist)-packages/(?P<name>\w+)")
_TENSORFLOWS = ("tensorflow", "tf_", "keras", "numpy", "ml_dtypes", "h5py", "absl")
_OF_ANY_LIBRARY = ("nan", "missing-file", "corrupt-data")
"""What messages of other libraries mean as well: theirs about shapes are about something else."""


@dataclass(frozen=True)
class _Place:
    """Where an exception comes from."""

    line: CallSite | None = None
    layer: str | None = None
    op: str | None = None
    op_type: str | None = None
    graph: str | None = None
    is_backward: bool = False


def diagnose_exception(error: BaseException, graphs: Sequence[Any] = ()) -> Diagnosis:
    """Translate an exception of a TensorFlow program into a short diagnosis.

    Args:
        error: The exception, with its traceback.
        graphs: Graphs (``tf.Graph``) that may hold the op it names, the latest last; with none
            the line comes from the message and the traceback.

    Returns:
        The diagnosis; symptom ``exception`` where the message is of no known kind.
    """
    chain = list(_chain(error))
    text = "\n".join(_text_of(link) for link in chain)
    pattern, match = _classify(chain)
    place = _place(error, text, graphs)
    detail = _detail(_told(text), match)
    symptom, suggestions, phase = "exception", _NO_SUGGESTIONS, _AT_RUNTIME
    name = type(error).__name__
    cause = detail if detail.startswith(name) else f"{name}: {detail}"
    if pattern is not None and match is not None:
        cause = pattern.cause.format(**match.groupdict(), detail=detail)
        symptom, suggestions, phase = pattern.symptom, pattern.suggestions, pattern.phase
    return Diagnosis(
        symptom=symptom,
        cause=cause,
        op=place.op,
        op_type=place.op_type,
        graph=place.graph,
        layer=place.layer,
        phase="backward" if place.is_backward else phase,
        confidence=0.9 if pattern else 0.6,
        suggestions=suggestions,
        evidence={"exception": type(error).__name__, "message": text[:4000]},
    ).at(place.line)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the exception and what caused it, the outermost first."""
    current: BaseException | None = error
    seen: set[int] = set()
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        hidden = current.__suppress_context__
        current = current.__cause__ or (None if hidden else current.__context__)


def _text_of(error: BaseException) -> str:
    message = getattr(error, "message", None)
    return _ANSI.sub("", message if isinstance(message, str) else str(error))


def _told(text: str) -> str:
    """Return what an error says, without the stack and the arguments that are quoted with it."""
    if text.lstrip().startswith("in user code:"):
        text = _QUOTED_STACK.sub("", text)
    text = _PIPELINE.sub(r"in \g<op> of the input pipeline: ", text)
    return _ROOT_ERRORS.sub("", _BOILERPLATE.sub("", text))


def _classify(
    chain: list[BaseException],
) -> tuple[ExceptionPattern | None, re.Match[str] | None]:
    for error in chain:
        text = _told(_text_of(error))
        known = PATTERNS
        if isinstance(error, MemoryError):
            text = f"out of memory: {text}"
        elif not (_is_tensorflows(error) or _TOLD_OF_USERS_LINE.search(text)):
            if not _is_of_library(error):
                continue
            known = tuple(one for one in PATTERNS if one.symptom in _OF_ANY_LIBRARY)
        if _AS_KEY in text and not _is_fed(error):
            continue
        for pattern in known:
            match = pattern.pattern.search(text)
            if match and (pattern.symptom != "none-for-tensor" or not _is_of_gradients(error)):
                return pattern, match
    return None, None


def _is_fed(error: BaseException) -> bool:
    """Tell whether an error comes out of a session's run, or of a statement that feeds one."""
    for frame, line in _frames(error.__traceback__):
        file = frame.f_code.co_filename
        if "tensorflow/python/client/session" in file:
            return True
        if is_users(file) and _FEEDS.search(statement_at(CallSite(file, line))):
            return True
    return False


def _is_of_gradients(error: BaseException) -> bool:
    """Tell whether a None is one that stands for a gradient."""
    if _is_retold(error) and "grad" in _text_of(error):  # in the stack that it quotes
        return True
    for frame, line in _frames(error.__traceback__):
        file, name = frame.f_code.co_filename, frame.f_code.co_name
        if is_users(file):
            if "grad" in statement_at(CallSite(file, line)):
                return True
        elif "grad" in name or name.startswith("clip_by_"):
            return True
    return False


def _is_tensorflows(error: BaseException) -> bool:
    """Tell whether an error was raised by TensorFlow, Keras or numpy, or what they stand on."""
    if type(error).__module__.startswith(("tensorflow", "keras")) or _is_retold(error):
        return True
    package = _PACKAGE.search(_file_that_raised(error).replace("\\", "/"))
    return package is not None and package["name"].startswith(_TENSORFLOWS)


def _is_of_library(error: BaseException) -> bool:
    file = _file_that_raised(error)
    return bool(file) and not is_users(file)


def _file_that_raised(error: BaseException) -> str:
    return next(
        (frame.f_code.co_filename for frame, _ in reversed([*_frames(error.__traceback__)])), ""
    )


def _is_retold(error: BaseException) -> bool:
    """Tell whether AutoGraph or Keras raised an error anew, with its own account of the stack."""
    return str(error).lstrip().startswith(("in user code:", "Exception encountered"))


def _detail(text: str, match: re.Match[str] | None) -> str:
    """Return the line of the message that says what happened."""
    if match is not None:
        start = text.find(match.group(0))
        if start >= 0:
            first = text.rfind("\n", 0, start) + 1
            last = text.find("\n", start + len(match.group(0)))
            return _shortened(text[first : last if last >= 0 else len(text)])
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(_NOISE)]
    return _shortened((telling or lines or ["no message"])[0])


def _shortened(text: str) -> str:
    text = re.sub(r"\{\{[^}]*\}\}\s*", "", " ".join(text.split()))
    return text if len(text) <= MAX_DETAIL_CHARACTERS else text[:MAX_DETAIL_CHARACTERS] + "…"


def _place(error: BaseException, text: str, graphs: Sequence[Any]) -> _Place:
    by_op = _place_by_op(text, graphs)
    in_python = _line_in_python(text)
    if in_python is not None:
        return _Place(in_python, op=by_op.op if by_op else None)
    if by_op is not None and by_op.line is not None:
        return by_op
    by_frames = _place_by_frames(error)
    quoted = [
        CallSite(match["file"], int(match["line"]))
        for match in _QUOTED_LINE.finditer(text)
        if is_users(match["file"])
    ]
    is_told = "in user code:" in text
    if _LEAKED in text and quoted:  # the stack it quotes is that of the tensor's making
        return _Place(find_escape(quoted[-1]) or quoted[-1], by_frames.layer)
    node = _NODE.search(text)
    name = (node["node"] or node["at"]) if node else None
    return _Place(
        line=quoted[-1] if quoted and (name or is_told) else by_frames.line,
        layer=by_frames.layer or (_layer_of_scope(name) if name else None),
        op=name,
        is_backward=bool(name and "gradient_tape/" in name),
    )


def _line_in_python(text: str) -> CallSite | None:
    """Return the user's line in the traceback that a py_function or generator left in a message."""
    _, begins, traceback = text.partition("Traceback (most recent call last):")
    lines = [
        CallSite(match["file"], int(match["line"]))
        for match in _QUOTED_LINE.finditer(traceback.partition("[[{{node")[0])
        if begins and is_users(match["file"])
    ]
    return lines[-1] if lines else None


def _place_by_op(text: str, graphs: Sequence[Any]) -> _Place | None:
    """Find the op that a message names in the graphs at hand."""
    functions = [match["function"] or match["called"] for match in _FUNCTION.finditer(text)]
    for match in _NODE.finditer(text):
        name = (match["node"] or match["at"]).split(" ")[0]
        for graph in _likely_first(graphs, functions):
            op = _find_op(graph, name)
            if op is not None and op.type == "CheckNumericsV2":  # named below what it checks
                op = _find_op(graph, name.rpartition("/")[0])
            if op is None:
                continue
            if op.type in ("IteratorGetNext", "StatefulPartitionedCall", "PartitionedCall"):
                continue  # the failing op is inside
            forward = _forward_of(graph, op)
            return _Place(
                line=_construction_of_stock_layer(forward or op) or user_line(forward or op),
                layer=_layer_of_scope((forward or op).name),
                op=op.name,
                op_type=op.type,
                graph=graph.name,
                is_backward=forward is not None,
            )
    return None


def _find_op(graph: Any, name: str) -> Any:
    try:
        return graph.get_operation_by_name(name)
    except (KeyError, ValueError):
        return None


def _likely_first(graphs: Sequence[Any], functions: list[str]) -> list[Any]:
    """Sort graphs so that those whose name the message holds come first, the latest first."""

    def is_named(graph: Any) -> bool:
        return any(str(graph.name) in function for function in functions)

    latest_first = list(reversed(graphs))
    return sorted(latest_first, key=lambda graph: not is_named(graph))


def _forward_of(graph: Any, op: Any) -> Any:
    """Return the forward op that a gradient op belongs to, by shared tensors; None if forward."""
    if not op.name.startswith("gradient_tape/"):
        return None
    scope = op.name.removeprefix("gradient_tape/").rpartition("/")[0]
    peers = [
        other
        for other in graph.get_operations()
        if other.name == scope or other.name.rpartition("/")[0] == scope
    ]
    taken = {tensor.ref() for tensor in op.inputs}
    for other in peers:
        if taken & {tensor.ref() for tensor in (*other.inputs, *other.outputs)}:
            return other
    return peers[0] if peers else None


def _construction_of_stock_layer(op: Any) -> CallSite | None:
    """Return where the user made the library's layer that an op belongs to.

    None where the op stands in the user's own code, or the layer is not known.
    """
    files = [frame.filename for frame in op.traceback]
    users = max((i for i, file in enumerate(files) if is_users(file)), default=-1)
    layers = max((i for i, file in enumerate(files) if _LAYER_CALL in file), default=-1)
    scope = _layer_of_scope(op.name)
    if users > layers or scope is None:
        return None
    sites = {
        vars(candidate)[SITE]
        for candidate in gc.get_objects()
        if SITE in getattr(candidate, "__dict__", ()) and hasattr(type(candidate), "get_weights")
        if _layer_of_scope(f"{getattr(candidate, 'path', '')}/op") == scope
    }
    return sites.pop() if len(sites) == 1 else None


def _layer_of_scope(name: str) -> str | None:
    """Return the layer's path that an op's name begins with, without what makes names unique."""
    scope = name.removeprefix("gradient_tape/").rpartition("/")[0]
    parts = [re.sub(r"_\d+$", "", part) for part in scope.split("/") if part]
    return "/".join(parts) or None


def _frames(traceback: TracebackType | None) -> Iterator[tuple[FrameType, int]]:
    while traceback is not None:
        yield traceback.tb_frame, traceback.tb_lineno
        traceback = traceback.tb_next


def _place_by_frames(error: BaseException) -> _Place:
    """Find the user's line on the traceback, or where the user made the layer that failed."""
    frames = [
        pair for link in _chain(error) for pair in reversed(list(_frames(link.__traceback__)))
    ]
    layer = next((path for frame, _ in frames if (path := _layer_path(frame))), None)
    for frame, line in frames:
        file = frame.f_code.co_filename
        if is_users(file) and "__autograph_generated_file" not in file:
            return _Place(CallSite(file, line), layer)
        site = _construction_site(frame) or _compiled_at(frame)
        if site is not None:
            return _Place(site, layer)
    return _Place(layer=layer)


def _construction_site(frame: FrameType) -> CallSite | None:
    """Return where the user made the library's object that runs in a frame."""
    found = frame.f_locals.get("self")
    attributes = getattr(found, "__dict__", {})
    if found is None or COMPILE_SITE in attributes:
        return None  # a model as a whole is at work in all of its layers
    if hasattr(found, "apply_gradients") and not _is_in_fit(frame):
        return None  # an own loop hands the optimizer what it fails on
    site = attributes.get(SITE)
    return site if isinstance(site, CallSite) else None


def _compiled_at(frame: FrameType) -> CallSite | None:
    """Return where the user compiled a model, if what was given there is why a frame failed.

    Keras looks at losses, metrics and their weights only once it has a batch.
    """
    if type(frame.f_locals.get("self")).__name__ not in _OF_COMPILE:
        return None
    weight = frame.f_locals.get("loss_weight")
    if frame.f_code.co_name not in _READ_COMPILE and not isinstance(weight, str):
        return None
    site = _model_at_work(frame).get(COMPILE_SITE)
    return site if isinstance(site, CallSite) else None


def _is_in_fit(frame: FrameType) -> bool:
    """Tell whether Keras's own training loop runs a frame."""
    return bool(_model_at_work(frame))


def _model_at_work(frame: FrameType) -> dict[str, Any]:
    """Return the attributes of the compiled model that runs a frame; none where there is none."""
    current: FrameType | None = frame
    while current is not None:
        attributes: dict[str, Any] = getattr(current.f_locals.get("self"), "__dict__", {})
        if COMPILE_SITE in attributes:
            return attributes
        current = current.f_back
    return {}


def _layer_path(frame: FrameType) -> str | None:
    found = frame.f_locals.get("self")
    if frame.f_code.co_name in _LOOPS or not hasattr(type(found), "get_weights"):
        return None
    return str(getattr(found, "path", None) or getattr(found, "name", "")) or None
