"""Options from dataclasses: flags for what is on or off, and help that shows a default where there is one."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import pytest

from bort.cli.options import HelpFormatter, add_settings, get_settings
from bort.settings import PretrainingSettings


@dataclass(frozen=True)
class Example:
    """Some settings.

    Attributes:
        number: of things, 0 % of the time
            more than one.
        kind: round or square.
        quiet: says nothing.
        careful: looks twice.
    """

    number: int = 0
    kind: str = "round"
    quiet: bool = False
    careful: bool = True


@pytest.fixture
def parser():
    parser = argparse.ArgumentParser(formatter_class=HelpFormatter)
    add_settings(parser, Example, choices={"kind": ("round", "square")})
    return parser


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("", Example()),
        ("--quiet", Example(quiet=True)),
        ("--careful", Example()),
        ("--no-careful", Example(careful=False)),
        ("--number 3 --kind square --quiet --no-careful", Example(3, "square", True, False)),
    ],
)
def test_arguments_become_settings(parser, arguments, expected):
    assert get_settings(Example, parser.parse_args(arguments.split())) == expected


@pytest.mark.parametrize("arguments", ["--quiet True", "--quiet=False", "--no-quiet", "--kind oval", "--number many"])
def test_what_is_no_value_of_an_option_is_refused(parser, arguments, capsys):
    with pytest.raises(SystemExit) as exit_:
        parser.parse_args(arguments.split())
    assert exit_.value.code == 2
    assert arguments.split("=")[0].split()[0] in capsys.readouterr().err


def test_help_shows_a_default_where_there_is_one(parser):
    text = " ".join(parser.format_help().split())
    assert "--number NUMBER of things, 0 % of the time more than one (default: 0)" in text
    assert "--kind {round,square} round or square (default: round)" in text
    assert "--quiet says nothing --careful, --no-careful looks twice (default: True)" in text


def test_flags_of_pretraining():
    parser = argparse.ArgumentParser()
    add_settings(parser, PretrainingSettings)
    arguments = ["--use_avg_len", "--batch_size", "4096", "--num_buckets", "5", "--whole_word_mask"]
    expected = PretrainingSettings(batch_size=4096, use_avg_len=True, num_buckets=5, whole_word_mask=True)
    assert get_settings(PretrainingSettings, parser.parse_args(arguments)) == expected
