"""Command-line options from the fields of a settings dataclass, and what they were given.

A field gives the option its name, type and default, and the ``Attributes:`` section of the class's docstring its help, so a setting is
described in one place.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
from collections.abc import Collection, Mapping
from typing import Any, TypeVar, get_type_hints

SettingsT = TypeVar("SettingsT")


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Adds its default to an option's help, where there is one to speak of, and keeps the paragraphs of a description apart."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False or action.default == []:
            return action.help
        if isinstance(action.default, list):
            return f"{action.help} (default: {' '.join(map(str, action.default))})"
        return super()._get_help_string(action)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """A paragraph whose lines are indented keeps them as they are."""
        fill = super()._fill_text
        paragraphs = inspect.cleandoc(text).split("\n\n")
        return "\n\n".join(each if each.startswith(" ") else fill(each, width, indent) for each in paragraphs)


def add_settings(
    parser: argparse.ArgumentParser | argparse._ArgumentGroup,
    settings: type[Any],
    choices: Mapping[str, tuple[str, ...]] | None = None,
    other_names: Mapping[str, str] | None = None,
    later: Collection[str] = (),
    where: str = "",
) -> None:
    """Add one option for each field of a dataclass; a bool field is a flag, with a ``--no-`` form where it is on by default.

    Args:
        choices: allowed values of a field.
        other_names: a second name of a field's option.
        later: fields whose default is found when the command runs: their option is None where it is not given.
        where: where that default is found, for the help.
    """
    help_texts = _attribute_help(settings)
    hints = get_type_hints(settings)
    for field in dataclasses.fields(settings):
        names, help_text, default = [f"--{field.name}"], help_texts[field.name], field.default
        if field.name in (other_names or {}):
            names.append(f"--{(other_names or {})[field.name]}")
        if field.name in later:
            help_text, default = f"{help_text} (default: {where})", None
        if hints[field.name] is bool:
            action = argparse.BooleanOptionalAction if field.default else "store_true"
            parser.add_argument(*names, dest=field.name, action=action, default=default, help=help_text)
        else:
            kind, allowed = hints[field.name], (choices or {}).get(field.name)
            metavar = {int: "N", float: "X"}.get(kind)
            parser.add_argument(*names, dest=field.name, type=kind, default=default, choices=allowed, metavar=metavar, help=help_text)


def get_settings(settings: type[SettingsT], arguments: argparse.Namespace, found: Mapping[str, Any] | None = None) -> SettingsT:
    """Build a dataclass from the options that :func:`add_settings` made.

    Args:
        found: values of fields whose option was not given; a field that is not there has the dataclass's default.
    """
    values = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(settings)}  # type: ignore[arg-type]
    for name, value in values.items():
        if value is None and name in (found or {}):
            values[name] = (found or {})[name]
    return settings(**{name: value for name, value in values.items() if value is not None})


def given_options(arguments: argparse.Namespace) -> set[str]:
    """Names of the options that a verb's command line gives, also of those that have their default's value there.

    Args:
        arguments: as :func:`bort.cli.main` parsed them, of a verb without options that collect values.
    """
    unset = object()
    words = arguments.words[1:]  # behind the verb
    parsed = arguments.parser.parse_args(words, argparse.Namespace(**dict.fromkeys(vars(arguments), unset)))
    return {name for name, value in vars(parsed).items() if value is not unset}


def add_vocabulary_options(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Add ``--vocab`` and ``--dataset_name``, which every verb that needs a vocabulary takes."""
    parser.add_argument(
        "--vocab", metavar="DIR", help="folder with vocab.json and merges.txt or with GluonNLP's two files; or a SentencePiece .model"
    )
    parser.add_argument(
        "--dataset_name",
        "--dataset",
        dest="dataset_name",
        metavar="NAME",
        help="published vocabulary, in place of --vocab: openwebtext_ccnews_stories_books_cased, which is RoBERTa's, is looked for in "
        "model/ and in the caches of GluonNLP and Hugging Face",
    )


def _attribute_help(settings: type[Any]) -> dict[str, str]:
    """``name: text`` of the docstring's ``Attributes:`` section; a text may continue in deeper indented lines."""
    section = inspect.getdoc(settings).split("Attributes:\n", 1)[1]  # type: ignore[union-attr]
    entries = re.findall(r"^    (\w+): (.+(?:\n {8,}.+)*)", section, flags=re.MULTILINE)
    # argparse reads % as the start of a format.
    return {name: re.sub(r"\s+", " ", text).replace("%", "%%").replace("``", "").rstrip(".") for name, text in entries}
