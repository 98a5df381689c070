"""The one way in which templates become pages: escaped, strict, and safe to show."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.tasks.dataset.printable import printable
from headstart.tasks.evaluation.report_content import percent

if TYPE_CHECKING:
    from jinja2 import Environment


def make_environment(*folders: Path, **filters: Any) -> "Environment":
    """Make an environment for HTML templates.

    Args:
        *folders: Where templates are looked for, in this order.
        **filters: Beside ``percent`` and ``printable``.

    Returns:
        The environment; a name that a template reads and nobody gave is an error.
    """
    # Imported here: a hit replays the page and does not need it.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(folders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Markup that is already escaped passes as it is.
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    environment.filters |= {"percent": percent, "printable": printable, **filters}
    return environment
