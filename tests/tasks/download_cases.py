"""What the tests of downloads share: an archive, what it holds, and what came of it."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zipfile
from pathlib import Path

import pytest

from bort.errors import BortError
from bort.tasks.download import MANIFEST, download

CB_PATH = "/glue/superglue/data/v2/CB.zip"
ROWS = b"".join(
    json.dumps({"premise": f"p {number}", "hypothesis": "h", "label": "neutral", "idx": number}).encode() + b"\n" for number in range(20)
)
CB_FILES = {"train.jsonl": ROWS, "val.jsonl": ROWS[:500].rpartition(b"\n")[0] + b"\n", "test.jsonl": ROWS}


def zip_of(members, method=zipfile.ZIP_DEFLATED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tar_of(members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


CB_ZIP = zip_of({f"CB/{name}": content for name, content in CB_FILES.items()}, zipfile.ZIP_STORED)


def everything(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(Path(root).rglob("*")) if path.is_file()}


def data(root):
    return {name: content for name, content in everything(root).items() if not name.endswith(MANIFEST)}


def failure(task, root):
    with pytest.raises(BortError) as caught:
        download(task, root, progress=False)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def program(official, then):
    """A program for which ``official`` is CB's archive, in a process of its own."""
    return (
        "import dataclasses, sys\n"
        "from bort.tasks.download import SOURCES, download\n"
        "(source,) = SOURCES['superglue/CB']\n"
        f"size, sha256 = {len(official)}, '{hashlib.sha256(official).hexdigest()}'\n"
        "SOURCES['superglue/CB'] = (dataclasses.replace(source, size=size, sha256=sha256),)\n" + then
    )
