"""Official files of a task fetched into its folder under the data root.

Notable: a folder appears whole or not at all; in one that exists already, files are kept and only missing ones are added. No archive is
opened unless its SHA-256 is the official one. Beside the data, written last, is ``downloaded.json`` with what was fetched, the digests of
what was unpacked and the numbers of its files, so that a file that was changed or lost later is noticed. ``BORT_DATA_MIRROR`` replaces the
published hosts: an http or https address, or a folder, with the files under the same paths. Several processes may ask for the same task:
one fetches, the others wait.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bort.errors import BortError, on_one_line
from bort.files import file_digest, whole_directory, whole_file, write_text
from bort.tasks.archives import unpack
from bort.tasks.mrpc import write_mrpc
from bort.tasks.registry import get_task
from bort.tasks.sources import ELSEWHERE, SOURCES, Source, is_address, place_of
from bort.tasks.task import Task
from bort.tasks.transfer import fetch, without_credentials

MANIFEST = "downloaded.json"
_RACE = re.compile(r"(?:\./)?(?:[^/]+/)?((?:train|dev|test)/(?:high|middle)/[0-9]+\.txt)")
# From Table 2 of Lai et al. (2017), "passages"; each is one file.
_RACE_ARTICLES = {
    "train/high": 18728,
    "train/middle": 6409,
    "dev/high": 1021,
    "dev/middle": 368,
    "test/high": 1045,
    "test/middle": 362,
}
# All names in downloaded.json are of this form; one with a slash or two dots would lead out of the folder.
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_IN_TOP_FOLDER = re.compile(r"(?:\./)?(?:[^/]+/)?([^/]+)")


@dataclass(frozen=True)
class Fetched:
    """One published file as it arrived.

    Attributes:
        url: where it came from; the path if the mirror is a folder.
        size: its bytes.
        sha256: its SHA-256 in hexadecimal, which is the official one.
    """

    url: str
    size: int
    sha256: str


@dataclass(frozen=True)
class DownloadReport:
    """What a download did.

    Attributes:
        task: the task's name.
        folder: the folder that holds its files.
        fetched: published files that were fetched; empty if the task was complete already.
        kept: files that were in the folder before, and stayed as they were.
        changed: published files that are not those of an earlier download.
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
        BortError: if a file cannot be fetched, is not the official one, or is no sound archive; existing data are untouched then.
        OSError: if the folder cannot be written.
    """
    task = get_task(task_or_name) if isinstance(task_or_name, str) else task_or_name
    if data_root is not None:
        task = dataclasses.replace(task, data_root=Path(data_root))
    folder = task.folder
    if is_complete(task):
        return DownloadReport(task.name, folder)
    places = [place_of(source) for source in SOURCES[task.folders[0]]]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _alone(folder.parent):
        if is_complete(task):
            return DownloadReport(task.name, folder)
        return _download(task, places, progress)


def is_complete(task: Task) -> bool:
    """Whether all files of a task are there.

    A folder of many files must have as many as were downloaded or, if it does not come from a download, as are published.

    Raises:
        BortError: if that cannot be seen, for want of permission or because ``downloaded.json`` is damaged.
    """
    if not all(task.is_present(segment.name) for segment in task.segments):
        return False
    if not any(segment.subfolders for segment in task.segments):
        return True
    if noted := _read_manifest(task.folder).get("files"):
        return all(_count_files(task.folder / name) >= count for name, count in noted.items())
    folders = [f"{segment.file}/{subfolder}" for segment in task.segments for subfolder in segment.subfolders]
    return all(_count_files(task.folder / name) >= _RACE_ARTICLES[name] for name in folders)


def changes_since_download(task: Task) -> list[str]:
    """Files and folders of a task that are no longer what was downloaded; none if its folder does not come from a download.

    Raises:
        BortError: if ``downloaded.json`` is damaged.
    """
    folder = task.folder
    contents = _read_manifest(folder).get("contents", {})
    return [name for name, digest in contents.items() if not (folder / name).exists() or _digest(folder / name) != digest]


def _download(task: Task, places: list[str], progress: bool) -> DownloadReport:
    folder = task.folder
    # Left by a killed process: nobody else works here while the lock is held.
    for stale in folder.parent.glob(f".{folder.name}.*.partial"):
        if stale.is_dir() and not stale.is_symlink():
            shutil.rmtree(stale, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent) as scratch:
        unpacked = Path(scratch, "unpacked")
        unpacked.mkdir()
        files, fetched = [], []
        for source, place in zip(SOURCES[task.folders[0]], places, strict=True):
            file = _fetch(source, place, folder.parent, Path(scratch), progress)
            files.append(file)
            fetched.append(_checked(source, place, file))
        _fill(task, unpacked, files, fetched[0].url)
        changed = _changed_sources(folder, fetched)
        kept = _place(unpacked, folder, fetched)
    return DownloadReport(task.name, folder, tuple(fetched), tuple(kept), tuple(changed))


def _fill(task: Task, folder: Path, files: list[Path], url: str) -> None:
    """Make the task's files from the published ones."""
    key = task.folders[0]
    if key == "glue/MRPC":
        train, test, dev_ids = files
        write_mrpc(train, test, dev_ids, folder)
    elif key == "glue/AX":
        shutil.copyfile(files[0], folder / task.segments[0].file)
    else:
        unpack(files[0], folder, _race_file if key == "race" else _file_of(task), called=url)
    for name in _RACE_ARTICLES if key == "race" else [segment.file for segment in task.segments]:
        if not (folder / name).exists():
            raise BortError(f"{url}: holds no {name}, so it is not {task.name}; {ELSEWHERE}")


def _race_file(member: str) -> str | None:
    match = _RACE.fullmatch(member)
    return match[1] if match else None


def _file_of(task: Task) -> Callable[[str], str | None]:
    """Maps members of the archive to the task's files, by name: those at its top, or in a folder there."""
    names = {segment.file for segment in task.segments}

    def place(member: str) -> str | None:
        match = _IN_TOP_FOLDER.fullmatch(member)
        return match[1] if match and match[1] in names else None

    return place


def _fetch(source: Source, place: str, folder: Path, scratch: Path, progress: bool) -> Path:
    """A published file on this machine: in ``scratch``, or where the mirror has it."""
    if is_address(place):
        # What a broken download has brought stays in the folder, where the next one resumes; only a whole file leaves it.
        fetch(place, folder / f".{source.name}", source.size, progress)
        return (folder / f".{source.name}").rename(scratch / source.name)
    if not Path(place).is_file():
        raise BortError(
            f"{place}: no such file; BORT_DATA_MIRROR is an http or https address, or a folder with the published paths below it"
        )
    return Path(place)


def _checked(source: Source, place: str, file: Path) -> Fetched:
    url = without_credentials(place)
    size, sha256 = file.stat().st_size, file_digest(file)
    if sha256 != source.sha256:
        with file.open("rb") as opened:
            is_page = opened.read(64).lstrip().lower().startswith((b"<!doctype", b"<html"))
        found = "a web page" if is_page else f"{size} bytes with the SHA-256 {sha256}"
        raise BortError(f"{url}: {found} where the official file has {source.sha256}; try again, or {ELSEWHERE}")
    return Fetched(url, size, sha256)


def _place(unpacked: Path, folder: Path, fetched: list[Fetched]) -> list[str]:
    """Put files where they belong, with the note of the download; returns the names of those that were there before and are kept."""
    # Of what was unpacked, and not of the folder, where a file that is kept may be another.
    manifest = _manifest(unpacked, fetched)
    if not folder.exists():
        with whole_directory(folder) as whole:
            for entry in sorted(unpacked.iterdir()):
                entry.rename(whole / entry.name)
            write_text(whole / MANIFEST, manifest)
        return []
    kept = []
    for file in sorted(path for path in unpacked.rglob("*") if path.is_file()):
        relative = file.relative_to(unpacked)
        if (folder / relative).exists():
            kept.append(str(relative))
        else:
            with whole_file(folder / relative) as partial:
                shutil.copyfile(file, partial)
    write_text(folder / MANIFEST, manifest)
    return kept


def _manifest(unpacked: Path, fetched: list[Fetched]) -> str:
    """The text of the note of a download."""
    entries = sorted(unpacked.iterdir())
    manifest = {
        "fetched": [dataclasses.asdict(record) for record in fetched],
        "contents": {entry.name: _digest(entry) for entry in entries},
        "files": {entry.name: _count_files(entry) for entry in entries},
    }
    return json.dumps(manifest, indent=2) + "\n"


def _count_files(path: Path) -> int:
    """Files below a folder, those left out that a killed process was writing; 1 for a file, 0 for what is not there."""
    if path.is_dir():
        return sum(not name.startswith(".") for _, _, files in os.walk(path) for name in files)
    return int(path.is_file())


def _changed_sources(folder: Path, fetched: list[Fetched]) -> list[str]:
    """Published files of which an earlier download noted another digest."""
    before = {Path(record["url"]).name: record["sha256"] for record in _read_manifest(folder).get("fetched", [])}
    return [record.url for record in fetched if before.get(Path(record.url).name, record.sha256) != record.sha256]


def _read_manifest(folder: Path) -> dict[str, Any]:
    """The note of a download; empty if there is none."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise BortError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise BortError(f"{path}: damaged ({error}); remove it") from error
    if not _is_manifest(manifest):
        raise BortError(f"{path}: damaged (not as bort writes it); remove it")
    return manifest  # type: ignore[no-any-return]


def _is_manifest(value: Any) -> bool:
    """Whether a JSON value is the note of a download, and its names lead nowhere else."""
    fields = {"fetched": list, "contents": dict, "files": dict}
    if not isinstance(value, dict) or any(not isinstance(value.get(name), kind) for name, kind in fields.items()):
        return False
    records = [record.get(name) if isinstance(record, dict) else None for record in value["fetched"] for name in ("url", "sha256")]
    return (
        all(isinstance(text, str) for text in [*records, *value["contents"].values()])
        and all(type(count) is int for count in value["files"].values())
        and all(_NAME.fullmatch(name) for name in [*value["contents"], *value["files"]])
    )


def _digest(path: Path) -> str:
    """SHA-256 of a file; of a folder, that of the names and digests of all files below it."""
    if not path.is_dir():
        return file_digest(path)
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        if file.is_file() and not file.name.startswith("."):
            digest.update(f"{file.relative_to(path)} {file_digest(file)}\n".encode())
    return digest.hexdigest()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a folder's lock, which the system releases however the process ends; says so if it has to wait for another process."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(on_one_line(f"bort: another process downloads to {folder}; waiting for it"), file=sys.stderr, flush=True)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
