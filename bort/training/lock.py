"""One process at a time in a folder: a lock that ends with the process that holds it, however that ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bort.errors import BortError


@contextmanager
def only_process(folder: Path, what: str) -> Iterator[None]:
    """Hold a folder by its file ``.<what>.lock``, so that no second process works on it.

    The folder is made if it is not there, and removed again if nothing came into it. Where it cannot be written, or the file system has no
    locks, nothing is held; what is written there next says why it fails.

    Args:
        what: is at work there, ``run`` or ``sweep``; two of different names do not stand in each other's way.

    Raises:
        BortError: if another process holds it.
    """
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    path, descriptor = folder / f".{what}.lock", None
    try:
        descriptor = _locked(path)
    except BlockingIOError:
        raise BortError(f"{folder}: another {what} is at work there; wait for its end, or give another --output_dir") from None
    except OSError:
        pass
    try:
        yield
    finally:
        if descriptor is not None:
            # While it is held, so that nobody's lock on a later file of this name is lost.
            with suppress(OSError):
                path.unlink()
            os.close(descriptor)
        if is_new:
            with suppress(OSError):
                folder.rmdir()


def _locked(path: Path) -> int:
    """Descriptor of a file that no other process holds and that is still at ``path``."""
    while True:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it before may have removed it since it was opened.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    return descriptor
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)
