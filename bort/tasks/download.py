"""Official files of a task fetched into its folder under the data root.

Notable: a folder appears whole or not at all; in one that is there already, the files that stand in it are kept and only missing ones are
added. An archive is known by its SHA-256 before it is opened. Beside the data stands ``downloaded.json`` with what was fetched and the
digests of what it became, so that a later change is noticed. ``BORT_DATA_MIRROR`` takes the place of the published hosts: an http or https
address, or a folder, with the files under the same paths. Several processes may ask for the same task: one fetches, the others wait.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bort.errors import BortError
from bort.files import whole_directory, whole_file, write_text
from bort.tasks.archives import unpack
from bort.tasks.mrpc import write_mrpc
from bort.tasks.registry import get_task
from bort.tasks.sources import SOURCES, Source
from bort.tasks.task import Task, default_data_root
from bort.tasks.transfer import fetch, without_credentials

MANIFEST = "downloaded.json"
_LARGEST = 2 << 30  # bytes of a file whose size is not known
_ELSEWHERE = "name another place with BORT_DATA_MIRROR"
_RACE = re.compile(r"(?:\./)?(?:[^/]+/)?((?:train|dev|test)/(?:high|middle)/[0-9]+\.txt)")
_RACE_FOLDERS = tuple(f"{segment}/{level}" for segment in ("train", "dev", "test") for level in ("high", "middle"))
_IN_TOP_FOLDER = re.compile(r"(?:\./)?(?:[^/]+/)?([^/]+)")


@dataclass(frozen=True)
class Fetched:
    """One published file as it arrived.

    Attributes:
        url: where it came from; the path if the mirror is a folder.
        size: its bytes.
        sha256: its SHA-256 in hexadecimal.
        known: whether that is the official one; False if nobody knows the official one.
    """

    url: str
    size: int
    sha256: str
    known: bool


@dataclass(frozen=True)
class DownloadReport:
    """What a download did.

    Attributes:
        task: the task's name.
        folder: the folder that holds its files.
        fetched: published files that were fetched; empty if the task was complete already.
        kept: files that stood in the folder and were kept.
        changed: published files that are not what an earlier download found.
    """

    task: str
    folder: Path
    fetched: tuple[Fetched, ...] = ()
    kept: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()


def download(task_or_name: Task | str, data_root: Path | str | None = None, progress: bool = True) -> DownloadReport:
    """Fetch the files of a task, unless all are there.

    Args:
        task_or_name: the task, or its name as ``get_task`` knows it.
        data_root: folder that holds the benchmarks' folders; None for the task's own, else the default.
        progress: show progress bars, if there is a terminal.

    Raises:
        BortError: if a file cannot be had, is not the official one, or is no sound archive; existing data are untouched then.
        OSError: if the folder cannot be written.
    """
    task = get_task(task_or_name) if isinstance(task_or_name, str) else task_or_name
    if data_root is not None:
        task = dataclasses.replace(task, data_root=Path(data_root))
    folder = (task.data_root or default_data_root()) / task.folders[0]
    if is_complete(task):
        return DownloadReport(task.name, folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _alone(folder.parent):
        if is_complete(task):
            return DownloadReport(task.name, folder)
        return _download(task, folder, progress)


def is_complete(task: Task) -> bool:
    """Whether all files of a task are there."""
    return all(task.is_present(segment.name) for segment in task.segments)


def changes_since_download(task: Task) -> list[str]:
    """Files and folders of a task that are no longer what was downloaded; none if its folder does not come from a download.

    Raises:
        BortError: if the note of the download is damaged.
    """
    folder = (task.data_root or default_data_root()) / task.folders[0]
    contents = _read_manifest(folder).get("contents", {})
    return [name for name, digest in contents.items() if not (folder / name).exists() or _digest(folder / name) != digest]


def _download(task: Task, folder: Path, progress: bool) -> DownloadReport:
    # Left by a process that was killed; nobody else works here while the lock is held.
    for stale in folder.parent.glob(f".{folder.name}.*.partial"):
        if stale.is_dir() and not stale.is_symlink():
            shutil.rmtree(stale, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent) as scratch:
        unpacked = Path(scratch, "unpacked")
        unpacked.mkdir()
        files, fetched = [], []
        for source in SOURCES[task.folders[0]]:
            file = _fetch(source, folder.parent, Path(scratch), progress)
            files.append(file)
            fetched.append(_checked(source, file))
        _fill(task, unpacked, files, fetched[0].url)
        changed = _changed_sources(folder, fetched)
        kept = _place(unpacked, folder, fetched)
    return DownloadReport(task.name, folder, tuple(fetched), tuple(kept), tuple(changed))


def _fill(task: Task, folder: Path, files: list[Path], url: str) -> None:
    """Make a task's files of the published ones."""
    key = task.folders[0]
    if key == "glue/MRPC":
        train, test, dev_ids = files
        write_mrpc(train, test, dev_ids, folder)
    elif key == "glue/AX":
        shutil.copyfile(files[0], folder / task.segments[0].file)
    else:
        unpack(files[0], folder, _race_file if key == "race" else _file_of(task), called=url)
    for name in _RACE_FOLDERS if key == "race" else [segment.file for segment in task.segments]:
        if not (folder / name).exists():
            raise BortError(f"{url}: holds no {name}, so it is not {task.name}; {_ELSEWHERE}")


def _race_file(member: str) -> str | None:
    match = _RACE.fullmatch(member)
    return match[1] if match else None


def _file_of(task: Task) -> Callable[[str], str | None]:
    """Maps members to the task's files: those of their names at the top of the archive, or in a folder there."""
    names = {segment.file for segment in task.segments}

    def place(member: str) -> str | None:
        match = _IN_TOP_FOLDER.fullmatch(member)
        return match[1] if match and match[1] in names else None

    return place


def _mirrored(source: Source) -> str:
    """Where a published file is to be had: its address, or the path of a file."""
    mirror = os.environ.get("BORT_DATA_MIRROR", "")
    path = urlsplit(source.url).path
    if not mirror:
        return source.url
    if mirror.startswith(("http://", "https://")):
        return mirror.rstrip("/") + path
    return str(Path(mirror).expanduser() / path.lstrip("/"))


def _fetch(source: Source, folder: Path, scratch: Path, progress: bool) -> Path:
    """A published file on this machine: in ``scratch``, or where the mirror has it."""
    place = _mirrored(source)
    if place.startswith(("http://", "https://")):
        # A broken download is kept in the folder, and goes on there; only a whole file comes away.
        fetch(place, folder / f".{source.name}", source.size or _LARGEST, progress)
        return (folder / f".{source.name}").rename(scratch / source.name)
    if not Path(place).is_file():
        raise BortError(
            f"{place}: no such file; BORT_DATA_MIRROR is an http or https address, or a folder with the published paths below it"
        )
    return Path(place)


def _checked(source: Source, file: Path) -> Fetched:
    url = without_credentials(_mirrored(source))
    size, sha256 = file.stat().st_size, _digest(file)
    if source.sha256 not in (None, sha256):
        with file.open("rb") as opened:
            is_page = opened.read(64).lstrip().lower().startswith((b"<!doctype", b"<html"))
        found = "a web page" if is_page else f"{size} bytes with the SHA-256 {sha256}"
        raise BortError(f"{url}: {found} where the official file has {source.sha256}; try again, or {_ELSEWHERE}")
    return Fetched(url, size, sha256, source.sha256 is not None)


def _place(unpacked: Path, folder: Path, fetched: list[Fetched]) -> list[str]:
    """Put files where they belong, with the note of the download; names of those that were there and are kept."""
    entries = sorted(entry.name for entry in unpacked.iterdir())
    if not folder.exists():
        with whole_directory(folder) as whole:
            for name in entries:
                (unpacked / name).rename(whole / name)
            _write_manifest(whole, entries, fetched)
        return []
    kept = []
    for file in sorted(path for path in unpacked.rglob("*") if path.is_file()):
        relative = file.relative_to(unpacked)
        if (folder / relative).exists():
            kept.append(str(relative))
        else:
            with whole_file(folder / relative) as partial:
                shutil.copyfile(file, partial)
    _write_manifest(folder, entries, fetched)
    return kept


def _write_manifest(folder: Path, entries: list[str], fetched: list[Fetched]) -> None:
    manifest = {
        "fetched": [dataclasses.asdict(record) for record in fetched],
        "contents": {name: _digest(folder / name) for name in entries},
    }
    write_text(folder / MANIFEST, json.dumps(manifest, indent=2) + "\n")


def _changed_sources(folder: Path, fetched: list[Fetched]) -> list[str]:
    """Published files whose digest an earlier download noted, and noted as another."""
    before = {Path(record["url"]).name: record["sha256"] for record in _read_manifest(folder).get("fetched", [])}
    return [record.url for record in fetched if before.get(Path(record.url).name, record.sha256) != record.sha256]


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        return {}
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        names = [*manifest["contents"], *(record["url"] + record["sha256"] for record in manifest["fetched"])]
        if not all(isinstance(name, str) for name in names) or any("/" in name for name in manifest["contents"]):
            raise ValueError("not as bort writes it")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise BortError(f"{path}: damaged ({error}); remove it") from error
    return manifest  # type: ignore[no-any-return]


def _digest(path: Path) -> str:
    """SHA-256 of a file; of a folder, that of the names and digests of all files below it."""
    digest = hashlib.sha256()
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.is_file():
                digest.update(f"{file.relative_to(path)} {_digest(file)}\n".encode())
        return digest.hexdigest()
    with path.open("rb") as opened:
        while portion := opened.read(1 << 20):
            digest.update(portion)
    return digest.hexdigest()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a folder's lock, which ends with the process however it ends."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
