"""Fetches one file over HTTP, and resumes where a broken download stopped.

Notable: what has arrived stays in ``.NAME.partial`` beside the file to be, with a note of the address, the size and the server's mark of
the version (ETag, or the date of its last change). To resume is to ask for the rest if the mark still holds (RFC 9110, sections 13.1.5 and
14), so a file that changed in between starts anew, and so does one whose server has no such mark or no ranges. A connection that breaks is
tried again, after longer and longer pauses for as long as nothing arrives.
"""

from __future__ import annotations

import http.client
import json
import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

import requests
import urllib3
from requests.utils import get_auth_from_url, urldefragauth
from tqdm import tqdm

from bort.errors import BortError, on_one_line
from bort.files import write_text
from bort.tasks.sources import ELSEWHERE

PAUSES = (1.0, 2.0, 4.0, 8.0)
"""Seconds before each new attempt after one that brought nothing."""

_TIMEOUTS = (15.0, 60.0)  # seconds to connect, and between two arrivals
_REDIRECTS = 10
_COPIED_AT_ONCE = 1 << 16
_PASSING = (408, 425, 429, 500, 502, 503, 504)
# More digits are no size, and would take long to convert.
_SIZE = "[0-9]{1,18}"


class _Interrupted(Exception):
    """A fault that may pass; what has arrived is kept for the next attempt."""


@dataclass(frozen=True)
class _Version:
    """What a partial file is the beginning of.

    Attributes:
        url: the address asked for.
        mark: the server's strong ETag or, without one, its ``Last-Modified``; None if it gives neither.
        size: bytes of the whole file; None if the server does not say.
    """

    url: str
    mark: str | None
    size: int | None


def fetch(url: str, path: Path, most: int, progress: bool = True) -> None:
    """Fetch a file.

    Args:
        url: an http or https address; redirects to such addresses are followed.
        path: where it goes, whole or not at all; the folder must be there.
        most: the largest size, in bytes, that the file may have.
        progress: show a progress bar, if there is a terminal.

    Raises:
        BortError: if the file is not there, too large, or cannot be fetched in several attempts; names the address. What has arrived is
            kept for the next call, unless it is of no use.
        OSError: if it cannot be written.
    """
    partial = path.with_name(f".{path.name.removeprefix('.')}.partial")
    user, password = get_auth_from_url(url)
    url = without_credentials(url)
    failures = 0
    with requests.Session() as session:
        session.max_redirects = _REDIRECTS
        if user:
            session.auth = (user, password)
        while True:
            before = _size(partial)
            try:
                _transfer(session, url, partial, most, progress)
                break
            except _Interrupted as error:
                failures = 0 if _size(partial) > before else failures + 1
                if failures > len(PAUSES):
                    kept = f"; {_size(partial)} bytes are kept, from which the same command resumes" if _size(partial) else ""
                    raise BortError(f"{url}: {error}{kept}; check the network, or {ELSEWHERE}") from error
                time.sleep(PAUSES[max(failures - 1, 0)])
    partial.replace(path)
    _note(partial).unlink(missing_ok=True)


def without_credentials(url: str) -> str:
    """An address without user and password, fit to be shown; a path stays as it is."""
    return urldefragauth(url) if "://" in url else url


def _transfer(session: requests.Session, url: str, partial: Path, most: int, progress: bool) -> None:
    """One attempt: bring ``partial`` to its full size."""
    begun = _begun(partial, url)
    headers = {"Accept-Encoding": "identity"}
    if begun is not None and begun.mark:
        headers |= {"Range": f"bytes={_size(partial)}-", "If-Range": begun.mark}
    with _answer(session, url, headers) as response:
        if response.status_code == 416 and "Range" in headers:
            # There is nothing left to send: either everything is here or, if the sizes differ, all starts anew.
            if response.headers.get("Content-Range") == f"bytes */{_size(partial)}":
                return
            _forget(partial)
            raise _Interrupted("the server has no such range")
        status = f"{response.status_code} {http.client.responses.get(response.status_code, '')}".strip()
        if response.status_code in _PASSING:
            raise _Interrupted(f"the server answered {status}")
        if response.status_code not in (200, 206):
            raise BortError(f"{url}: the server answered {status}; the file may have moved: fetch it by hand, or {ELSEWHERE}")
        version = _version(response, url)
        resumes = response.status_code == 206
        if resumes and not _is_rest(response, begun, version, _size(partial)):
            _forget(partial)
            raise _Interrupted("the server sent another part than the one asked for")
        if version.size is not None and version.size > most:
            _refuse_size(partial, version, most)
        _receive(response, partial, version, resumes, most, progress)


def _answer(session: requests.Session, url: str, headers: dict[str, str]) -> requests.Response:
    """The head of the server's answer; its body is still to come."""
    try:
        return session.get(url, headers=headers, stream=True, timeout=_TIMEOUTS)
    except requests.TooManyRedirects as error:
        raise BortError(f"{url}: more than {_REDIRECTS} redirects; {ELSEWHERE}") from error
    except ValueError as error:
        # Requests raises several kinds of ValueError for addresses that it cannot or must not follow.
        raise BortError(f"{url}: leads to what is no http or https address ({_first_line(error)}); {ELSEWHERE}") from error
    except requests.RequestException as error:
        raise _Interrupted(f"no connection ({_first_line(error)})") from error


def _receive(response: requests.Response, partial: Path, version: _Version, resumes: bool, most: int, progress: bool) -> None:
    """Write the body to ``partial``: after what is there if ``resumes``, else from the start."""
    if not resumes:
        partial.unlink(missing_ok=True)
        write_text(_note(partial), json.dumps(asdict(version)))
    have = _size(partial)
    name = partial.name.removeprefix(".").removesuffix(".partial")
    bar = tqdm(total=version.size, initial=have, desc=name, unit="B", unit_scale=True, disable=None if progress else True, leave=False)
    try:
        with bar, partial.open("ab") as file:
            # Not decoded: some servers declare a gzip file to be gzip-encoded, and it must stay a gzip file.
            for portion in response.raw.stream(_COPIED_AT_ONCE, decode_content=False):
                have += len(portion)
                if have > most:
                    _refuse_size(partial, version, most)
                file.write(portion)
                bar.update(len(portion))
    except urllib3.exceptions.HTTPError as error:
        raise _Interrupted(f"the connection broke after {_size(partial)} bytes ({_first_line(error)})") from error
    if version.size is not None and have != version.size:
        raise _Interrupted(f"the connection ended after {have} of {version.size} bytes")


def _refuse_size(partial: Path, version: _Version, most: int) -> NoReturn:
    _forget(partial)
    size = "more" if version.size is None else f"{version.size} bytes"
    raise BortError(f"{version.url}: {size} where at most {most} were expected, so it is another file; {ELSEWHERE}")


def _version(response: requests.Response, url: str) -> _Version:
    """What the answer says about the whole file."""
    tag = response.headers.get("ETag")
    # A weak tag vouches for the meaning, not for the bytes.
    mark = response.headers.get("Last-Modified") if tag is None or tag.startswith("W/") else tag
    if response.status_code == 206:
        total = re.fullmatch(rf"bytes {_SIZE}-{_SIZE}/({_SIZE})", response.headers.get("Content-Range", ""))
        return _Version(url, mark, int(total[1]) if total else None)
    length = response.headers.get("Content-Length", "")
    return _Version(url, mark, int(length) if re.fullmatch(_SIZE, length) else None)


def _is_rest(response: requests.Response, begun: _Version | None, version: _Version, have: int) -> bool:
    """Whether a partial answer begins where ``have`` bytes of the same file end, and goes to its end."""
    place = re.fullmatch(rf"bytes ({_SIZE})-({_SIZE})/({_SIZE})", response.headers.get("Content-Range", ""))
    if begun is None or place is None or begun.size not in (None, version.size) or version.mark not in (None, begun.mark):
        return False
    return int(place[1]) == have and int(place[2]) + 1 == int(place[3])


def _begun(partial: Path, url: str) -> _Version | None:
    """What a partial file is the beginning of; None if there is none, it is from another address, or its note is damaged."""
    try:
        version = _Version(**json.loads(_note(partial).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    return version if version.url == url and isinstance(version.mark, str) and _size(partial) else None


def _note(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.json")


def _forget(partial: Path) -> None:
    partial.unlink(missing_ok=True)
    _note(partial).unlink(missing_ok=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _first_line(error: Exception) -> str:
    """A library's message, which may quote a server, on one line and cut to 160 characters."""
    text = on_one_line(" ".join(str(error).split()) or type(error).__name__)
    return text if len(text) <= 160 else f"{text[:160]}…"
