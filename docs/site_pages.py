"""Pages of the site that are made: of the repository's own files, the commands and the settings.

A hook of MkDocs, named in mkdocs.yml.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from typer.main import get_command

from headstart.cli import app
from headstart.config import CONFIG_OF
from headstart.config.template import template

ROOT = Path(__file__).parent.parent
REPOSITORY_FILES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made."""
    have = {file.src_uri for file in files}
    for source, page in REPOSITORY_FILES.items():
        text = _for_site((ROOT / source).read_text(encoding="utf-8"))
        files.append(File.generated(config, page, content=text))
    files.append(File.generated(config, "commands.md", content="\n".join(_commands())))
    files.append(File.generated(config, "settings.md", content="\n".join(_settings())))
    missing = {page.name for page in (ROOT / "docs").glob("*.md")} - have
    assert not missing, missing
    return files


def _for_site(text: str) -> str:
    """Have links of a file in the repository's root lead to pages of the site."""
    text = text.replace("](docs/", "](").replace('src="docs/', 'src="')
    for source, page in REPOSITORY_FILES.items():
        text = text.replace(f"]({source})", f"]({page})")
    return text


def _settings() -> Iterator[str]:
    yield "# Settings\n"
    yield "Every field of every configuration, at its default, under what it means; "
    yield "`headstart config COMMAND` prints the same. `--set section.field=value` sets one.\n"
    for command in CONFIG_OF:
        yield f"## {command}\n\n```yaml\n{template(command)}```\n"


def _commands() -> Iterator[str]:
    yield "# Commands\n"
    yield "What `headstart COMMAND -h` says.\n"
    yield from _command("headstart", get_command(app))


def _command(name: str, command: Any) -> Iterator[str]:
    if command.hidden:
        return
    if name != "headstart":
        yield f"## {name}\n"
        yield f"{_plain(command.help)}\n"
        rows = [_option(one) for one in command.params if not getattr(one, "hidden", False)]
        rows = [row for row in rows if row]
        if rows:
            yield "\n".join(["| | |", "|---|---|", *rows, ""])
    for inner, one in getattr(command, "commands", {}).items():
        yield from _command(f"{name} {inner}", one)


def _option(parameter: Any) -> str:
    if "--help" in parameter.opts:
        return ""
    is_argument = parameter.param_type_name == "argument"
    name = (
        (parameter.metavar or parameter.name.upper()) if is_argument else ", ".join(parameter.opts)
    )
    return f"| `{name}` | {_plain(getattr(parameter, 'help', ''))} |"


def _plain(text: str | None) -> str:
    """Leave markup out, and what would end a cell of a table."""
    escaped = re.sub(r"\s+", " ", text or "").replace("|", "\\|").replace("<", "&lt;")
    return re.sub(r"\[/?(bold|red|green|dim)\]", "", escaped).replace("\b", "")
