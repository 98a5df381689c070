"""Diagnoses for people: terminal text, Markdown and HTML.

The text is plain (no colour, no box) so that it reads the same in a terminal, a log and a mail.
"""

import html
from collections.abc import Sequence
from dataclasses import replace

from headstart.debug.diagnosis import Diagnosis, TensorHealth

HEALTHY = "No fault found."


def render_text(diagnoses: Sequence[Diagnosis]) -> str:
    """Draw diagnoses as plain text for a terminal.

    Args:
        diagnoses: The findings, most likely first.

    Returns:
        The text, without a trailing newline.
    """
    if not diagnoses:
        return HEALTHY
    return "\n\n".join(
        "\n".join(_text_block(number, len(diagnoses), found))
        for number, found in enumerate(diagnoses, start=1)
    )


MAX_TRIED = 3
"""Suggestions shown of the first finding; a screen has no room for more."""


def render_screen(diagnoses: Sequence[Diagnosis]) -> str:
    """Draw the first finding in full and one line for each other one, for a terminal's screen.

    Args:
        diagnoses: The findings, causes before what follows from them.

    Returns:
        The text, without a trailing newline.
    """
    if not diagnoses:
        return HEALTHY
    first, *rest = diagnoses
    lines = _text_block(1, 1, replace(first, suggestions=first.suggestions[:MAX_TRIED]))
    follows = [other for other in rest if other.caused_by == first.symptom]
    if follows:
        lines += ["", f"  Consequences: {', '.join(other.symptom for other in follows)}"]
    others = [other for other in rest if other not in follows]
    if others:
        lines.append("")
    for other in others:
        at = "" if other.file is None else f" at {other.file}:{other.line}"
        lines.append(f"  also {other.severity}: {other.symptom}{at}")
    if rest:
        lines += ["", "  `--all` shows every finding in full."]
    return "\n".join(lines)


def _text_block(number: int, total: int, found: Diagnosis) -> list[str]:
    counter = f"[{number}/{total}] " if total > 1 else ""
    lines = [f"{counter}{found.severity}: {found.symptom}", f"  {found.cause}"]
    lines += [f"  {label + ':':<9}{value}" for label, value in _facts(found)]
    if found.source_context:
        lines += ["", *(f"    {line}" for line in found.source_context)]
    if found.suggestions:
        lines += ["", "  try:", *(f"    - {suggestion}" for suggestion in found.suggestions)]
    return lines


def _facts(found: Diagnosis) -> list[tuple[str, str]]:
    """Return what is known of the place, as (label, value), in reading order."""
    facts = []
    if found.file is not None:
        facts.append(("at", found.file if found.line is None else f"{found.file}:{found.line}"))
    if found.layer is not None:
        facts.append(("layer", found.layer))
    if found.op is not None:
        kind = f" ({found.op_type})" if found.op_type else ""
        facts.append(("op", f"{found.op}{kind}"))
    if found.step is not None:
        batch = "" if found.batch is None else f", batch {found.batch}"
        facts.append(("when", f"{found.step_unit} {found.step}{batch}"))
    if found.phase != "forward" or found.op is not None:
        facts.append(("phase", found.phase))
    facts += [("input", _health_text(health)) for health in found.inputs_health]
    facts += [("output", _health_text(health)) for health in found.outputs_health]
    return facts


def _health_text(health: TensorHealth) -> str:
    parts = [health.name]
    if health.dtype is not None:
        parts.append(health.dtype)
    if health.shape is not None:
        sizes = ", ".join("?" if size is None else str(size) for size in health.shape)
        parts.append(f"[{sizes}]")
    if health.num_nan is not None or health.num_inf is not None:
        of = "" if health.size is None else f" of {health.size}"
        parts.append(f"NaN {health.num_nan or 0}, Inf {health.num_inf or 0}{of}")
    if health.min is not None and health.max is not None:
        parts.append(f"from {health.min:g} to {health.max:g}")
    return " ".join(parts)


def render_markdown(diagnoses: Sequence[Diagnosis], title: str = "Diagnosis") -> str:
    """Draw diagnoses as Markdown, for a Prefect artifact or a crash bundle.

    Args:
        diagnoses: The findings, most likely first.
        title: Text of the heading.

    Returns:
        The Markdown text, ending in a newline.
    """
    blocks = [f"# {_markdown_escaped(title)}"]
    if not diagnoses:
        blocks.append(HEALTHY)
    for found in diagnoses:
        blocks.append(f"## {found.severity}: {_markdown_escaped(found.symptom)}")
        blocks.append(_markdown_escaped(found.cause))
        facts = [f"- {label}: {_code_span(value)}" for label, value in _facts(found)]
        if facts:
            blocks.append("\n".join(facts))
        if found.source_context:
            blocks.append("\n".join(["````python", *found.source_context, "````"]))
        if found.suggestions:
            tries = [f"- {_markdown_escaped(suggestion)}" for suggestion in found.suggestions]
            blocks.append("\n".join(["What to try:", "", *tries]))
    return "\n\n".join(blocks) + "\n"


def _markdown_escaped(text: str) -> str:
    """Keep text from starting HTML or Markdown markup of its own."""
    for character in "\\`*_[]":
        text = text.replace(character, "\\" + character)
    return text.replace("<", "&lt;").replace(">", "&gt;").replace("\n", " ")


def _code_span(text: str) -> str:
    fence = "``" if "`" in text else "`"
    return f"{fence}{text}{fence}".replace("\n", " ")


def render_html(diagnoses: Sequence[Diagnosis], title: str = "Diagnosis") -> str:
    """Draw diagnoses as a self-contained HTML fragment; all text is escaped.

    Args:
        diagnoses: The findings, most likely first.
        title: Text of the heading.

    Returns:
        One ``<section class="diagnoses">`` element.
    """
    body = "".join(_html_article(found) for found in diagnoses) or f"<p>{HEALTHY}</p>"
    return f'<section class="diagnoses"><h2>{html.escape(title)}</h2>{body}</section>'


def _html_article(found: Diagnosis) -> str:
    parts = [
        f'<article class="diagnosis {found.severity}">',
        f"<h3>{html.escape(found.symptom)}</h3><p>{html.escape(found.cause)}</p>",
    ]
    facts = _facts(found)
    if facts:
        rows = "".join(
            f"<dt>{label}</dt><dd><code>{html.escape(value)}</code></dd>" for label, value in facts
        )
        parts.append(f"<dl>{rows}</dl>")
    if found.source_context:
        parts.append(f"<pre>{html.escape(chr(10).join(found.source_context))}</pre>")
    if found.suggestions:
        items = "".join(f"<li>{html.escape(suggestion)}</li>" for suggestion in found.suggestions)
        parts.append(f"<ul>{items}</ul>")
    return "".join(parts) + "</article>"
