"""Files that are no manifest: how to make one of them."""

import os
from pathlib import Path

from PIL import Image

from headstart.tasks.dataset.listing import ARCHIVES
from headstart.tasks.dataset.printable import printable

_COCO = """; annotations like COCO's can be written as CSV, in Python:
import csv, json
coco = json.load(open({source!r}))
names = {{one["id"]: one["name"] for one in coco["categories"]}}
files = {{one["id"]: one["file_name"] for one in coco["images"]}}
rows = {{(files[one["image_id"]], names[one["category_id"]]) for one in coco["annotations"]}}
with open({target!r}, "x", newline="") as file:
    csv.writer(file).writerows([("path", "label"), *sorted(rows)])
Then give that file, and --set dataset.root=FOLDER if the images lie in another folder. If an image
can have several labels: --set dataset.target=labels --set dataset.repeated_paths=merge"""

_COCO_PARTS = (
    (b'"categories"',),
    (b'"images"', b'"file_name"'),
    (b'"annotations"', b'"image_id"'),
)
"""The names of its three lists, or of fields within them: a name may stand between the ends."""
_END_BYTES = 2**20


def conversion(images: Path) -> str:
    """Say how a table in another form becomes one that is read.

    Args:
        images: What was given for a folder or a manifest.

    Returns:
        What follows the advice to give one of these, with a semicolon before it; empty where
        nothing is known of such files.
    """
    readers = {
        ".json": "read_json({!r})",
        ".jsonl": "read_json({!r}, lines=True)",
        ".ndjson": "read_json({!r}, lines=True)",
        ".xlsx": "read_excel({!r})",
        ".xls": "read_excel({!r})",
        ".ods": "read_excel({!r})",
        ".feather": "read_feather({!r})",
        ".orc": "read_orc({!r})",
    }
    if images.suffix.lower() in (".txt", ".lst", ".data", ".dat", "") and images.is_file():
        return (
            "; if it is a table with the header path,label above its lines, call it "
            f"{printable(images.stem)}.csv"
        )
    ending = images.suffix.lower()
    if ending == ".json" and _is_coco(images):
        return _COCO.format(source=str(images), target=str(images.with_suffix(".csv")))
    read = readers.get(ending)
    if read is None and ending in ARCHIVES:
        return "; unpack it first"
    if read is None and ending in Image.registered_extensions():
        return "; to predict one image: headstart predict MODEL IMAGE"
    if read is None:
        return ""
    written = str(images.with_suffix(".csv"))
    call = f"pandas.{read.format(str(images))}.to_csv({written!r}, index=False)"
    return f"; such a table can be written as CSV, in Python: {call}"


def _is_coco(file: Path) -> bool:
    """Tell annotations like COCO's by their two ends; such a file may have gigabytes between."""
    if not file.is_file():  # a FIFO would be waited for
        return False
    try:
        with file.open("rb") as opened:
            ends = opened.read(_END_BYTES)
            opened.seek(max(len(ends), opened.seek(0, os.SEEK_END) - _END_BYTES))
            ends += opened.read(_END_BYTES)
    except OSError:
        return False
    return all(any(name in ends for name in names) for names in _COCO_PARTS)
