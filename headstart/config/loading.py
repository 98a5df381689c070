"""How a configuration is read: a YAML file, then dotted settings, then named options."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from headstart.config.auditing import AuditConfig
from headstart.config.base import Config
from headstart.config.finetune import CompareConfig, FinetuneConfig, TransferabilityConfig
from headstart.config.ranking import RankConfig
from headstart.config.retrain import RetrainConfig
from headstart.config.scratch import ScratchConfig
from headstart.config.surveying import SurveyConfig
from headstart.config.sweep import SweepConfig
from headstart.config.transfer import TransferConfig
from headstart.errors import ConfigError
from headstart.reading import MAX_CONFIG_BYTES, load_yaml, read_regular

CONFIG_OF: dict[str, type[Config]] = {
    "train": TransferConfig,
    "scratch": ScratchConfig,
    "sweep": SweepConfig,
    "finetune": FinetuneConfig,
    "compare": CompareConfig,
    "transferability": TransferabilityConfig,
    "rank": RankConfig,
    "audit": AuditConfig,
    "survey": SurveyConfig,
    "retrain": RetrainConfig,
}
"""The commands that take ``--config``, and what stands in their files."""

VERBATIM = (
    *("dataset.label_separator", "dataset.number_unit"),
    *("dataset.decimal_sign", "dataset.thousands_sign"),
)
"""Fields of ``--set`` that are taken as they stand, unless quoted: | , - % and a space mean
something else in YAML."""
MAX_SHOWN = 120
"""Characters of a wrong value that are shown."""

AnyConfig = TypeVar("AnyConfig", bound=Config)


def load_config(
    images: str | Path | None = None,
    file: Path | None = None,
    settings: Iterable[str] | str = (),
    overrides: dict[str, Any] | None = None,
    base: TransferConfig | None = None,
) -> TransferConfig:
    """Build the configuration of a transfer run; `build_config` says from what."""
    return build_config(TransferConfig, images, file, settings, overrides, base)


def _listed(settings: Any) -> Iterable[str]:
    """List settings, of which one may stand alone; refuse what Python's users may think of."""
    if isinstance(settings, str):
        return (settings,)
    if isinstance(settings, Iterable) and not isinstance(settings, Mapping):
        listed = list(settings)
        if all(isinstance(setting, str) for setting in listed):
            return listed
    raise ConfigError(
        "settings are strings, as --set takes them",
        f"{type(settings).__name__} {settings!r:.60}",
        'for instance settings=["head.kind=mlp", "head.epochs=5"]',
    )


def build_config(
    model: type[AnyConfig],
    images: str | Path | None = None,
    file: Path | None = None,
    settings: Iterable[str] | str = (),
    overrides: dict[str, Any] | None = None,
    base: AnyConfig | None = None,
) -> AnyConfig:
    """Build a flow's configuration from a YAML file, then dotted settings, then named overrides.

    Args:
        model: The flow's configuration model.
        images: The image folder or manifest; beats ``dataset.images`` of the file.
        file: A YAML file with the fields of the model.
        settings: ``section.field=value`` strings, or one; each value is read as YAML.
        overrides: Dotted names to values, from dedicated options; None values are left out.
        base: A configuration made in Python, to begin with instead of a file.

    Returns:
        The validated configuration.

    Raises:
        ConfigError: One error that lists every wrong field.
    """
    fields: dict[str, Any] = _read_yaml(file) if file else {}
    if base is not None:
        fields = base.model_dump()
    for setting in _listed(settings):
        name, sign, text = setting.partition("=")
        if not sign or not name.strip():
            raise ConfigError(
                "--set expects section.field=value",
                repr(setting),
                "for instance --set head.kind=mlp",
            )
        is_quoted = len(text.strip()) > 1 and text.strip().startswith(("'", '"'))
        is_verbatim = name.strip() in VERBATIM and not is_quoted
        _assign(fields, name.strip(), text if is_verbatim else parse_value(setting, text))
    for name, value in (overrides or {}).items():
        if value is not None:
            _assign(fields, name, value)
    if images is not None:
        _assign(fields, "dataset.images", images)
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise ConfigError(
            "the configuration has invalid fields",
            "\n" + "\n".join(_explain(model, item) for item in error.errors()),
            f"fix the fields above; {_where_listed(model)} them all",
        ) from None


def _where_listed(model: type[Config]) -> str:
    for command, known in CONFIG_OF.items():
        if known is model:
            return f"`headstart {command} --help` and `headstart config {command}` list"
    return "the command's --help lists"


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        fields = load_yaml(read_regular(file, MAX_CONFIG_BYTES).decode("utf-8-sig"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            "the configuration file cannot be read as YAML",
            f"{file}: {reason}",
            "check the path, or fix the file",
        ) from None
    if fields is None:
        return {}
    if not isinstance(fields, dict):
        raise ConfigError(
            "the configuration file is not a mapping of sections",
            f"{file}: a {type(fields).__name__}",
            "start from the output of `headstart config COMMAND`",
        )
    return fields


def parse_value(setting: str, text: str) -> Any:
    """Read the value of a setting as YAML.

    Args:
        setting: The whole option, for the error.
        text: What stands after the ``=``.

    Raises:
        ConfigError: It is not YAML.
    """
    try:
        value = load_yaml(text)
    except (ValueError, yaml.YAMLError) as error:
        raise ConfigError(
            "the value of --set is not valid YAML",
            f"{setting!r}: {error}",
            'quote it, or write a list as [a, b], and a lone asterisk in quotes, as ["*"]',
        ) from None
    if isinstance(value, str):  # YAML 1.1 reads 1e-3 as text; people mean a number
        try:
            return float(value) if "e" in value.lower() else value
        except ValueError:
            return value
    return value


def _assign(fields: dict[str, Any], name: str, value: Any) -> None:
    *sections, last = name.split(".")
    for section in sections:
        inner = fields.setdefault(section, {})
        if not isinstance(inner, dict):
            raise ConfigError(
                f"{section} was given as a value, but it is a section with fields",
                f"{section}: {inner!r}",
                f"set {name} alone",
            )
        fields = inner
    fields[last] = value


def _explain(model: type[BaseModel], item: Any) -> str:
    name = ".".join(str(part) for part in item["loc"]) or "configuration"
    if item["type"] == "missing":
        images = "; name the images, as the command's argument or as dataset.images"
        return f"  {name}: is required{images if name.startswith('dataset') else ''}"
    section = _section(model, item["loc"][:-1])
    if item["type"] == "extra_forbidden":
        close = get_close_matches(str(item["loc"][-1]), section.model_fields if section else ())
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        return f"  {name}: there is no such field{hint}"
    if item["type"] == "string_pattern_mismatch" and section is not None:
        described = section.model_fields[str(item["loc"][-1])].description or ""
        meaning = " ".join(described.split())
        return f"  {name}: is not of the right form (received {_shown(item['input'])}): {meaning}"
    return f"  {name}: {_in_words(item)} (received {_shown(item['input'])})"


def _section(model: type[BaseModel], names: Iterable[int | str]) -> type[BaseModel] | None:
    """Return the model of a section; None where the names lead through a list or a union."""
    for name in names:
        field = model.model_fields.get(str(name))
        if field is None or not isinstance(field.annotation, type):
            return None
        if not issubclass(field.annotation, BaseModel):
            return None
        model = field.annotation
    return model


def _in_words(item: Any) -> str:
    """Say what is wrong without pydantic's own vocabulary."""
    if item["type"] == "value_error":  # one of ours: pydantic puts "Value error, " before it
        return str(item["ctx"]["error"])
    if item["type"] in ("tuple_type", "list_type"):
        return f"should be a list, in brackets: '[{_shown(item['input'])}]'"
    return str(item["msg"]).replace("Input should be", "should be")


def _shown(value: Any) -> str:
    """Write what was received as a user would: in YAML's words, on one line, not too long."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    plain = yaml.safe_dump(_plain(value), default_flow_style=True, allow_unicode=True, width=1000)
    text = " ".join(plain.removesuffix("...\n").split())
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float) else str(value)
