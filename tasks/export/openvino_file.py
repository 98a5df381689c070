"""What an OpenVINO model says of itself: an .xml file with the graph, weights in a .bin beside it.

OpenVINO keeps what it is told about a model under ``rt_info``, which its runtimes hand out.
"""

import xml.etree.ElementTree as ET
from pathlib import Path

from headstart.tasks.export.file_names import WEIGHTS_SUFFIX
from headstart.tasks.store.fingerprint import bytes_digest, file_digest

SECTION = "headstart"
"""Below ``rt_info``; an element for each entry, with the text in the attribute ``value``."""


def append_metadata(path: Path, entries: dict[str, str]) -> None:
    """Put entries into a model's metadata."""
    tree = _parse(path)
    root = tree.getroot()
    info = root.find("rt_info")
    if info is None:
        info = ET.SubElement(root, "rt_info")
    section = ET.SubElement(info, SECTION)
    for key, value in entries.items():
        ET.SubElement(section, key, value=value)
    tree.write(path, encoding="utf-8", xml_declaration=True)


def read_metadata(path: Path) -> dict[str, str]:
    """Read a model's metadata.

    Raises:
        ValueError: It is no XML.
    """
    section = _parse(path).getroot().find(f"rt_info/{SECTION}")
    return {entry.tag: entry.get("value", "") for entry in ([] if section is None else section)}


def part_digests(path: Path) -> dict[str, str]:
    """Return the SHA-256 of the graph, without headstart's own metadata, and of the weights.

    Raises:
        ValueError: It is no XML.
        OSError: One of the two files is not there.
    """
    root = _parse(path).getroot()
    for info in root.findall("rt_info"):
        for section in info.findall(SECTION):
            info.remove(section)
    graph = ET.canonicalize(ET.tostring(root, encoding="unicode"), strip_text=True)
    weights = path.with_suffix(WEIGHTS_SUFFIX)
    return {"graph": bytes_digest(graph.encode()), "weights": file_digest(weights)}


def _parse(path: Path) -> "ET.ElementTree[ET.Element]":
    try:
        return ET.parse(path)
    except ET.ParseError as error:
        raise ValueError(f"not XML: {error}") from None
