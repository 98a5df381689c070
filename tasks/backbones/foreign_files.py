"""Model files that may come from a stranger, looked at before anything in them is used.

A .keras file is opened in Keras' safe mode, which runs no code of the file's own; but what it
claims to hold may not fit into any memory. A SavedModel is a TensorFlow program: loading it and
asking it for a prediction runs its ops, so that those are read first.
"""

import json
import math
import re
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from headstart.reading import MAX_TABLE_BYTES, growth_limit, read_regular

MAX_CONFIG_BYTES = 64 * 2**20
MAX_MEMBERS = 10_000
MAX_DEPTH = 100
BYTES_A_WEIGHT = 4
SAVED_MODEL_FILES = ("saved_model.pb", "keras_metadata.pb", "fingerprint.pb")
SAVED_MODEL_FOLDERS = ("assets", "assets.extra", "variables")
"""What makes up a SavedModel. Source: TensorFlow's SavedModel README."""

_FORBIDDEN = re.compile(
    r"File|Reader(V2)?$|PyFunc|Save|Restore|Checkpoint|Snapshot|Dataset|Iterator|Summary.*Writer"
    r"|^WriteSummary|^Write.*Summary$|^Debug|Remote|Rpc|Grpc|Service|LMDB|Sql|Bigtable|Vocab"
    r"|RemapMatrix|ImmutableConst|Proto|^_?(Send|Recv|HostSend|HostRecv)$|^Collective|^_?Nccl|TPU"
    r"|^_?Xla|RecordInput|Skipgram|DumpTensor|FixedUnigram|Heartbeat"
    r"|^StoreMinibatchStatisticsInFdo$|^Sleep"
)
"""Ops that touch files, Python, the network or other processes, or wait, by their names in
TensorFlow's registry (tensorflow/core/ops/ops.pbtxt). A model that classifies images needs none of
them."""
_SAVER = re.compile(r"SaveV2|RestoreV2|MergeV2Checkpoints")
"""What every SavedModel with variables has in the two functions that keep and bring them back."""
_STREAMS = (b"stdout", b"stderr", b"log(info)", b"log(warning)", b"log(error)")
_COUNTING = threading.Lock()


def keras_problem(path: Path) -> str:
    """Say why a .keras file shall not be opened.

    Returns:
        The reason in a few words; "" where there is none.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            size = path.stat().st_size
            unpacked = sum(member.file_size for member in members)
            if len(members) > MAX_MEMBERS:
                return f"an archive of {len(members):,} files"
            if unpacked > growth_limit(size):
                return f"{size:,} bytes that become {unpacked:,} when they are unpacked"
            for member in members:
                if member.filename.endswith(".json") and member.file_size > MAX_CONFIG_BYTES:
                    return f"a {member.filename} of {member.file_size:,} bytes"
                if member.filename == "config.json" and _runs_program(archive.read(member)):
                    return "a layer that runs a SavedModel from elsewhere on the disk"
            for member in members:
                if member.filename.endswith(".h5") and (told := _weights_problem(archive, member)):
                    return told
    except Exception as error:  # whatever zipfile, zlib and HDF5 stumble on
        return f"damaged, or not a .keras file ({str(error).partition(chr(10))[0]})"
    return ""


def _runs_program(config: bytes) -> bool:
    # Parsed, since JSON can write a letter as its number.
    return "TFSMLayer" in json.dumps(json.loads(config))


def _weights_problem(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> str:
    """Read how large an HDF5 file's arrays become, without reading them."""
    import h5py

    needed = 0
    with archive.open(member) as stream, h5py.File(stream, "r") as file:
        waiting = [("", file)]
        while waiting:
            above, group = waiting.pop()
            for name in group:
                where = f"{above}/{name}"
                if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                    return f"{member.filename} whose {where} lies outside the file"
                item = group[name]
                if isinstance(item, h5py.Group):
                    if where.count("/") > MAX_DEPTH:
                        return f"{member.filename} with groups nested too deeply"
                    waiting.append((where, item))
                elif isinstance(item, h5py.Dataset):
                    if item.external or item.is_virtual:
                        return f"{member.filename} whose {where} lies outside the file"
                    needed += item.nbytes
    if needed > growth_limit(member.file_size):
        return f"{member.filename} of {member.file_size:,} bytes that become {needed:,}"
    return ""


@contextmanager
def within_bounds(path: Path) -> Iterator[None]:
    """Stop the loading of a .keras file once it makes more weights than the file can hold.

    The weights are made from the configuration, before the file's own are read: a line of text can
    ask for more of them than there is memory.

    Raises:
        ValueError: It makes more.
    """
    import keras

    left = growth_limit(path.stat().st_size)
    thread, make = threading.get_ident(), keras.Variable.__init__

    def count(
        self: Any, initializer: Any, shape: Any = None, *arguments: Any, **named: Any
    ) -> None:
        nonlocal left
        if shape is not None and threading.get_ident() == thread:
            left -= BYTES_A_WEIGHT * math.prod(int(side or 0) for side in shape)
            if left < 0:
                raise ValueError(_too_many(path))
        make(self, initializer, shape, *arguments, **named)

    with _COUNTING:
        keras.Variable.__init__ = count
        try:
            yield
        except Exception:  # Keras puts its own words around ours
            if left < 0:
                raise ValueError(_too_many(path)) from None
            raise
        finally:
            keras.Variable.__init__ = make


def _too_many(path: Path) -> str:
    return f"{path.stat().st_size:,} bytes, too few for the weights that its configuration asks for"


def saved_model_problem(path: Path) -> str:
    """Say why a SavedModel shall not be loaded.

    Returns:
        The reason in a few words, with the names of its ops; "" where there is none.
    """
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    try:
        program = saved_model_pb2.SavedModel.FromString(
            read_regular(path / "saved_model.pb", MAX_TABLE_BYTES)
        )
    except (OSError, DecodeError) as error:
        return f"damaged, or not a SavedModel ({str(error).partition(chr(10))[0]})"
    if not program.meta_graphs:
        return "damaged, or not a SavedModel (it has no graph)"
    names = sorted({name for graph in program.meta_graphs for name in _forbidden_ops(graph)})
    return f"a program with {', '.join(names)}" if names else ""


def saved_model_files(path: Path) -> list[Path]:
    """List the files of a SavedModel, by name, and nothing else that lies in its folder."""
    own = [path / name for name in SAVED_MODEL_FILES]
    inner = (found for name in SAVED_MODEL_FOLDERS for found in (path / name).rglob("*"))
    return sorted(item for item in (*own, *inner) if item.is_file())


def _forbidden_ops(graph: Any) -> Iterator[str]:
    exempt = _saver_functions(graph)
    bodies = [("", graph.graph_def.node)]
    bodies += [(one.signature.name, one.node_def) for one in graph.graph_def.library.function]
    for function, nodes in bodies:
        for node in nodes:
            if function in exempt and _SAVER.fullmatch(node.op):
                continue
            if node.op == "ShardedFilename":  # makes a text of two
                continue
            if _FORBIDDEN.search(node.op):
                yield node.op
            if node.op == "PrintV2" and node.attr["output_stream"].s not in _STREAMS:
                yield node.op


def _saver_functions(graph: Any) -> set[str]:
    """Name the functions that keep and bring back variables, and that nothing else calls."""
    saver = graph.saver_def
    ends = (saver.save_tensor_name, saver.restore_op_name)
    callers = {name.partition(":")[0] for name in ends if name}
    mine: set[str] = set()
    others: set[str] = set(graph.object_graph_def.concrete_functions)
    for node in graph.graph_def.node:
        (mine if node.name in callers else others).update(_called(node))
    for function in graph.graph_def.library.function:
        for node in function.node_def:
            others.update(_called(node))
    return mine - others


def _called(node: Any) -> Iterator[str]:
    for value in node.attr.values():
        if value.func.name:
            yield value.func.name
        yield from (function.name for function in value.list.func)
