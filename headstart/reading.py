"""Read untrusted files with limits on size and depth.

What is called a list, a table or a configuration may be a FIFO that nobody writes to, a device
without an end, or a few lines of YAML that mean more than any memory holds.
"""

import errno
import os
import re
import stat
import zipfile
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

MAX_CONFIG_BYTES = 16 * 2**20
"""Of YAML and TOML that people write."""
MAX_TABLE_BYTES = 2 * 2**30
"""Of a manifest or a list: 100 million lines, which are in memory as a whole."""
MAX_YAML_NODES = 100_000
"""Values in a YAML file, those counted again that an alias repeats."""
MAX_YAML_DEPTH = 50
MAX_GROWTH = 10
"""Times that an archive may grow when it is unpacked. Weights and arrays hardly shrink: .keras and
.npz files of headstart's or Keras' own hold them as they are."""
ALLOWANCE_BYTES = 64 * 2**20
"""What an archive may grow by whatever its size: configurations are text, and shrink well."""


def read_regular(path: Path, max_bytes: int) -> bytes:
    """Read a file whole, if it is one.

    Args:
        path: Symbolic links are followed.
        max_bytes: Larger files are refused.

    Raises:
        OSError: It cannot be read, is too large, or is no regular file.
    """
    try:
        # Without waiting for who writes into a FIFO.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except ValueError as error:  # a NUL character in the name
        raise OSError(errno.EINVAL, str(error)) from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "a folder, FIFO, socket or device, so it is not read")
    with os.fdopen(descriptor, "rb") as file:
        # A file of /proc says that it has 0 bytes.
        data = b"" if status.st_size > max_bytes else file.read(max_bytes + 1)
    if max(status.st_size, len(data)) > max_bytes:
        raise OSError(errno.EFBIG, f"larger than {max_bytes:,} bytes, so it is not read")
    return data


def growth_limit(size: int) -> int:
    """Say how many bytes an archive, or an array in a file, of so many bytes may become."""
    return MAX_GROWTH * size + ALLOWANCE_BYTES


def check_growth(path: Path) -> None:
    """Refuse an archive of arrays, which are written as they are, that grows when it is unpacked.

    Raises:
        OSError: It cannot be read.
        ValueError: It becomes too large, or is no archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except zipfile.BadZipFile as error:
        raise ValueError(str(error)) from None
    if unpacked > growth_limit(path.stat().st_size):
        raise ValueError(f"it becomes {unpacked:,} bytes when it is unpacked")


def load_yaml(text: str) -> Any:
    """Read YAML as people mean it, and no more of it than a configuration has.

    Args:
        text: Content of a file, or the value of a setting.

    Returns:
        Mappings, lists, texts, numbers.

    Raises:
        yaml.YAMLError: It is no YAML, a key stands twice, or it is too deep or too large.
    """
    return yaml.load(text, _Loader)


class _Loader(yaml.SafeLoader):
    """YAML in which a key stands once: of two values, safe_load would keep the last in silence.

    Its values are counted while they are put together, an alias with all that it stands for.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Put a value together, unless it is too deep, too large or within itself."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        mark = event.start_mark
        self._depth += 1
        if self._depth > MAX_YAML_DEPTH:
            problem = f"more than {MAX_YAML_DEPTH} nested values here"
            raise yaml.composer.ComposerError(None, None, problem, mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if isinstance(event, yaml.AliasEvent):
            if id(node) not in self._sizes:
                problem = "an alias refers to a value that contains it"
                raise yaml.composer.ComposerError(None, None, problem, mark)
        elif node is not None:
            size = 1 + sum(self._sizes[id(inner)] for inner in _inner(node))
            self._sizes[id(node)] = size
            if size > MAX_YAML_NODES:
                problem = f"more than {MAX_YAML_NODES:,} values, counting what the aliases refer to"
                raise yaml.composer.ComposerError(None, None, problem, mark)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Build a mapping, but for one that has a key twice."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is not None and key in seen and key_node.tag != "tag:yaml.org,2002:merge":
                problem = f"{key} appears twice in this section"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _inner(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [one for pair in node.value for one in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


# YAML 1.1 reads 010 as 8, 1:30 as 90 and 2024-01-01 as a date: seeds and names of folders.
_ODD_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("int", "timestamp")}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _ODD_TAGS]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?(0|[1-9][0-9_]*)$"), list("-+0123456789")
)
