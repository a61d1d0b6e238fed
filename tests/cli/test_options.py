"""Options from dataclasses: flags for what is on or off, help that shows a default where there is one, and what was given."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import pytest

from bort.cli import build_parser
from bort.cli.options import HelpFormatter, add_settings, get_settings, given_options
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
    assert "--number N of things, 0 % of the time more than one (default: 0)" in text
    assert "--kind {round,square} round or square (default: round)" in text
    assert "--quiet says nothing --careful, --no-careful looks twice (default: True)" in text


def test_help_shows_lists_as_they_are_typed_and_none_where_it_is_empty():
    parser = argparse.ArgumentParser(formatter_class=HelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=["8x128", "8x512"], help="of batches")
    parser.add_argument("--benchmark", action="append", default=[], help="all its tasks")
    parser.add_argument("--jobs", type=int, default=0, help="at once")
    text = " ".join(parser.format_help().split())
    assert "of batches (default: 8x128 8x512)" in text
    assert text.endswith("--benchmark BENCHMARK all its tasks --jobs JOBS at once (default: 0)")


def test_paragraphs_of_a_description_stay_apart_and_indented_lines_as_they_are():
    description = "One line\nand another.\n\n  bort a   first\n  bort b   second\n\nThe end.\n"
    text = argparse.ArgumentParser(prog="x", description=description, formatter_class=HelpFormatter).format_help()
    assert "\n\nOne line and another.\n\n  bort a   first\n  bort b   second\n\nThe end.\n\n" in text


def test_settings_of_a_group_are_options_under_its_title():
    parser = argparse.ArgumentParser(formatter_class=HelpFormatter)
    add_settings(parser.add_argument_group("things"), Example)
    assert "things:\n  --number N" in parser.format_help()
    assert get_settings(Example, parser.parse_args(["--number", "3"])) == Example(3)


def given(line):
    """What a command line of bort finetune gives."""
    words = ["finetune", *line.split()]
    return given_options(build_parser().parse_args(words, argparse.Namespace(words=words)))


def test_what_is_given_is_told_from_what_is_left_at_its_default():
    """A value that is the default, another name of an option, and the form that switches a flag off, all count."""
    line = "--task_name RTE --model m --output_dir o --lr 1e-4 --no-use_scheduler --epsilon=1e-6 --seed 0 --seeds 1 2"
    assert given(line) == {"task", "model", "output_dir", "lr", "use_scheduler", "adam_epsilon", "seed", "seeds"}
    assert given("--task RTE --init_from d --output_dir o") == {"task", "init_from", "output_dir"}


def test_flags_of_pretraining():
    parser = argparse.ArgumentParser()
    add_settings(parser, PretrainingSettings)
    arguments = ["--use_avg_len", "--batch_size", "4096", "--num_buckets", "5", "--whole_word_mask"]
    expected = PretrainingSettings(batch_size=4096, use_avg_len=True, num_buckets=5, whole_word_mask=True)
    assert get_settings(PretrainingSettings, parser.parse_args(arguments)) == expected
