"""Tables for a terminal of any width.

Texts are narrowed first, and folded within their columns; figures never are. What then does not
fit beside each other comes one below the other, each part with the columns that say which row it
is. So nothing is cut off, and no line is longer than the terminal.
"""

from collections.abc import Collection, Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

GAP = 2
"""Characters between two columns."""
NARROWEST = 16
"""Characters to which a text may be narrowed before the table is parted, or its title's."""


def print_table(
    console: Console,
    titles: Sequence[str],
    rows: Sequence[Sequence[str]],
    figures: Collection[str] = (),
    num_keys: int = 1,
    bold_rows: Collection[int] = (),
    whole: Collection[str] = (),
) -> None:
    """Print a table.

    Args:
        console: Its width decides how far columns are narrowed.
        titles: Heading of each column.
        rows: Cells of each row, as many as there are titles.
        figures: Titles of columns that are never narrowed, and aligned on the right.
        num_keys: Columns at the left that say which row it is.
        bold_rows: Numbers of rows that stand out.
        whole: Titles of columns with names to copy: narrowed only where a line has no room.
    """
    natural = [
        max(cell_len(line) for cell in cells for line in (cell or "").split("\n"))
        for cells in zip(titles, *rows, strict=True)
    ]
    least = [
        width if title in figures or title in whole else min(width, max(NARROWEST, cell_len(title)))
        for title, width in zip(titles, natural, strict=True)
    ]
    parts = parted(natural, least, num_keys, console.width)
    for number, widths in enumerate(parts):
        if number:
            console.print()
        table = Table(box=None, header_style="bold", pad_edge=False)
        for place, width in widths.items():
            right = titles[place] in figures
            table.add_column(
                titles[place], justify="right" if right else "left", width=width, overflow="fold"
            )
        for row, cells in enumerate(rows):
            style = "bold" if row in bold_rows else None
            table.add_row(*(cells[place] for place in widths), style=style)
        console.print(table)


def parted(
    natural: Sequence[int], least: Sequence[int], num_keys: int, room: int
) -> Iterator[dict[int, int]]:
    """Say which columns stand beside each other, and how wide each is.

    Args:
        natural: Width of each column's widest cell.
        least: Width to which each may be narrowed.
        num_keys: Columns that each part begins with.
        room: Characters of a line.

    Yields:
        By column, its width; at the least one column besides the keys a part.
    """
    keys = list(range(num_keys))
    part: list[int] = []
    for place in range(num_keys, len(natural)):
        if part and _total([least[each] for each in (*keys, *part, place)]) > room:
            yield _widened([*keys, *part], least, natural, room)
            part = []
        part.append(place)
    yield _widened([*keys, *part], least, natural, room)


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def _widened(
    places: Sequence[int], least: Sequence[int], natural: Sequence[int], room: int
) -> dict[int, int]:
    """Give what room there is to the columns that have been narrowed, the narrowest first."""
    widths = {place: least[place] for place in places}
    while widths and _total(list(widths.values())) > room:  # a part of one column, too wide
        widest = max(widths, key=lambda place: widths[place])
        if widths[widest] == 1:
            break
        widths[widest] -= 1
    spare = room - _total(list(widths.values()))
    while spare > 0:
        growing = [place for place in places if widths[place] < natural[place]]
        if not growing:
            break
        narrowest = min(growing, key=lambda place: widths[place])
        widths[narrowest] += 1
        spare -= 1
    return widths
