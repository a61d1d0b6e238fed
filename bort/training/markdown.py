"""Markdown that shows what was meant, whatever a user called things.

Notable: text from outside stands in spans and blocks of code, whose fences are longer than any run of backticks inside, on one line where a
line is all there is room for; the YAML in front is written by a library.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import yaml  # type: ignore[import-untyped]


def page(front: Mapping[str, Any], parts: Iterable[str]) -> str:
    """Parts with a blank line between them, behind fields in YAML."""
    return f"---\n{yaml.safe_dump(dict(front), sort_keys=False, allow_unicode=True)}---\n\n" + "\n\n".join(parts) + "\n"


def settings_table(heading: str, settings: Mapping[str, Any]) -> str:
    """A table of names and values as they would be typed."""
    return table((heading, "value"), [(code(name), code(value)) for name, value in settings.items()])


def facts_table(heading: str, facts: Mapping[str, Any], column: str = "") -> str:
    """A table of facts by names that are Markdown already."""
    return table((heading, column), [(words, fact(value)) for words, value in facts.items()])


def table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A table of cells that are Markdown already; a vertical bar does not end a cell."""
    lines = [columns, ("---",) * len(columns), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def bullets(items: Iterable[str]) -> str:
    """A list of items that are Markdown already."""
    return "\n".join(f"- {item}" for item in items)


def fact(value: Any) -> str:
    """A fact as Markdown on one line: counts with separators, texts as code, since anything may be in them."""
    match value:
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case int() | np.integer():
            return f"{value:,}"
        case float() | np.floating():
            return f"{value:.6g}"
        case Mapping():
            return ", ".join(f"{code(name)} {fact(inner)}" for name, inner in value.items())
        case list() | tuple():
            return ", ".join(map(fact, value))
    return code(value)


def rounded(value: float) -> float:
    """A measured value with the four decimals that cards show."""
    return round(float(value), 4)


def code(text: Any) -> str:
    """A span of code on one line, whatever backticks it holds."""
    line = " ".join(str(text).split()) or "(nothing)"
    fence = "`" * (1 + _longest_run(line))
    space = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{space}{line}{space}{fence}"


def block(text: str, language: str) -> str:
    """A block of code, line ends and all."""
    fence = "`" * max(3, 1 + _longest_run(text))
    return f"{fence}{language}\n{text}\n{fence}"


def _longest_run(text: str) -> int:
    """Length of the longest run of backticks."""
    return max((len(run) for run in re.findall("`+", text)), default=0)
