"""The one exception that a user, rather than a programmer, is meant to read.

Every verb of the command line turns it into one line on standard error and exit status 2, so its message says what is wrong, where
(file, row or offset) and what to do about it. Everything else that is raised is a defect and keeps its traceback.
"""

from __future__ import annotations


class BortError(Exception):
    """Something the user gave is missing, damaged or does not fit; the message is one line that names it and the remedy."""


def on_one_line(text: str) -> str:
    """Text that may quote a file, a name or a server, fit for one line of a terminal.

    Line ends, control characters and all else that Python calls unprintable (invisible signs, halves of surrogate pairs, bytes of a name
    that are not UTF-8) stand there as escapes, such as ``\\n`` and ``\\x1b``; letters of any script stay as they are.
    """
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode("ascii") for sign in text)
