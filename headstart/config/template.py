"""A configuration file to start from: every field at its default, under what it means."""

import textwrap
from collections.abc import Iterator

import yaml

from headstart.config.base import Config
from headstart.config.loading import CONFIG_OF, build_config

IMAGES = {"scratch": "fashion-mnist"}
"""What stands for the user's data, where it is not a folder of images."""
WIDTH = 100
"""Of a line, in characters."""


def template(command: str) -> str:
    """Write a configuration file.

    Args:
        command: A key of `CONFIG_OF`.

    Returns:
        YAML that ``headstart COMMAND --config`` accepts, with comments.
    """
    config = build_config(CONFIG_OF[command], IMAGES.get(command, "images/"))
    return "\n".join([f"# headstart {command} --config FILE", "", *_lines(config, "")]) + "\n"


def _lines(config: Config, indent: str) -> Iterator[str]:
    plain = config.model_dump(mode="json")
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if isinstance(value, Config):
            yield from _comment(field.description or type(value).__doc__ or "", indent)
            yield f"{indent}{name}:"
            yield from _lines(value, f"{indent}  ")
        else:
            yield from _comment(field.description or "", indent)
            text = yaml.safe_dump({name: plain[name]}, sort_keys=False, allow_unicode=True)
            yield from (f"{indent}{line}" for line in text.splitlines())
        if not indent:
            yield ""


def _comment(text: str, indent: str) -> list[str]:
    """Turn the first paragraph of a text into comment lines."""
    paragraph = " ".join(text.strip().split("\n\n")[0].split())
    mark = f"{indent}# "
    return textwrap.wrap(paragraph, WIDTH, initial_indent=mark, subsequent_indent=mark)
