"""The one exception that a user, rather than a programmer, is meant to read.

Every verb of the command line turns it into one line on standard error and exit status 2, so its message says what is wrong, where
(file, row or offset) and what to do about it. Everything else that is raised is a defect and keeps its traceback.
"""

from __future__ import annotations


class BortError(Exception):
    """Something the user gave is missing, damaged or does not fit; the message is one line that names it and the remedy."""
