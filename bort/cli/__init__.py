"""The ``bort`` command: one small module per verb.

A verb's module has ``HELP`` (one line), ``add_arguments(parser)`` and ``run(arguments)``; the framework is imported inside ``run``, so that
help is instant. What the user did wrong is one line on standard error and exit status 2.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import io
import os
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

import bort
from bort.cli.options import HelpFormatter
from bort.errors import BortError, on_one_line

_REMEDIES = {
    errno.EEXIST: "a file stands where a folder is needed; give another path",
    errno.ENOTDIR: "a file stands where a folder is needed; give another path",
    errno.EISDIR: "a folder stands where a file is needed; give another path",
    errno.EACCES: "give a path that you may read and write",
    errno.EROFS: "give a path that you may write",
    errno.ENOSPC: "free some space or give another path",
}
VERBS = ("vocab", "data", "tasks", "pretrain", "finetune", "predict", "submit", "export", "bench")


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are one line, like all others of the command."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog.split()[0]}: error: {on_one_line(message)}; see {self.prog} --help\n")


def build_parser() -> argparse.ArgumentParser:
    """The parser of all verbs."""
    parser = OneLineParser(prog="bort", description=bort.__doc__.splitlines()[0] if bort.__doc__ else None)
    parser.add_argument("--version", action="version", version=f"bort {bort.__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name in VERBS:
        module = importlib.import_module(f"bort.cli.{name}")
        verb = verbs.add_parser(name, help=module.HELP, description=module.__doc__, formatter_class=HelpFormatter, allow_abbrev=False)
        module.add_arguments(verb)
        verb.set_defaults(run=module.run, parser=verb)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: its words; None for those of the process.

    Returns:
        The exit status: 0 done, 1 interrupted, 2 something is wrong with what was given.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal that cannot show a sign gets another in its place, not a failure after the work is done.
        sys.stdout.reconfigure(errors="replace")
    warnings.formatwarning = _one_line_warning
    words = list(sys.argv[1:] if arguments is None else arguments)
    parsed = build_parser().parse_args(words, argparse.Namespace(words=words))
    try:
        parsed.run(parsed)
    except BortError as error:
        _print_error(str(error))
        return 2
    except BrokenPipeError:
        # The reader of our output has gone; say nothing, and keep Python from trying to flush to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        # A full disk, a folder without permission: the user can change that, and the message names the file.
        remedy = _REMEDIES.get(error.errno or 0, "check the file and the disk")
        _print_error(f"{error.filename or 'input or output'}: {error.strerror or error}; {remedy}")
        return 2
    except KeyboardInterrupt:
        print("bort: interrupted", file=sys.stderr)
        return 1
    return 0


def _print_error(message: str) -> None:
    print(f"bort: error: {on_one_line(message)}", file=sys.stderr)


def _one_line_warning(message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None) -> str:
    # Python would show the place in our code too, which says nothing to a user.
    return f"bort: warning: {on_one_line(str(message))}\n"
