"""Downloads from a real server on this machine, which breaks off, redirects, changes its mind and serves harmful archives."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import hashlib
import io
import json
import os
import re
import socket
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from bort.errors import BortError
from bort.tasks import TASKS, get_task, transfer
from bort.tasks.download import MANIFEST, SOURCES, changes_since_download, download

CB_PATH = "/glue/superglue/data/v2/CB.zip"
ROWS = b"".join(
    json.dumps({"premise": f"p {number}", "hypothesis": "h", "label": "neutral", "idx": number}).encode() + b"\n" for number in range(20)
)
CB_FILES = {"train.jsonl": ROWS, "val.jsonl": ROWS[:500].rpartition(b"\n")[0] + b"\n", "test.jsonl": ROWS}


class Handler(BaseHTTPRequestHandler):
    """Serves ``server.files`` with ranges; each request to a path takes the next of ``server.orders[path]`` first."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server = self.server
        path = urlsplit(self.path).path
        server.requests.append((path, self.headers.get("Range"), self.headers.get("If-Range"), self.headers.get("Authorization")))
        orders = server.orders.get(path, [])
        order = orders.pop(0) if orders else "serve"
        content = server.files.get(path)
        tag = server.tags.get(path, f'"{hashlib.sha256(content or b"").hexdigest()[:16]}"')
        if isinstance(order, tuple) and order[0] == "redirect":
            return self._answer(order[1], {"Location": order[2]})
        if isinstance(order, int):
            return self._answer(order, {})
        if content is None:
            return self._answer(404, {})
        begin = 0
        headers = {"ETag": tag} if tag else {}
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked and order != "no range" and self.headers.get("If-Range") in (None, tag):
            begin = int(asked[1])
            if begin >= len(content):
                return self._answer(416, {"Content-Range": f"bytes */{len(content)}"})
            if order == "wrong part":
                begin -= 1
            headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        body = content[begin:]
        if order == "no length":
            headers["Connection"] = "close"
        else:
            headers["Content-Length"] = str(len(body))
        if order == "gzip encoding":
            headers["Content-Encoding"] = "gzip"
        self.send_response(206 if "Content-Range" in headers else 200)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if isinstance(order, tuple):
            body = body[: order[1]]
        self.wfile.write(body)
        if isinstance(order, tuple) and order[0] == "stall":
            self.wfile.flush()
            server.release.wait(60)
        if order == "no length" or isinstance(order, tuple):
            self.wfile.flush()
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
        return None

    def _answer(self, status, headers):
        self.send_response(status)
        for name, value in (headers | {"Content-Length": "0"}).items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(transfer, "PAUSES", (0.0, 0.0, 0.0))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.files, server.orders, server.tags, server.requests, server.release = {}, {}, {}, [], threading.Event()
        server.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setenv("BORT_DATA_MIRROR", server.url)
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def unknown(monkeypatch):
    """Nobody knows the digests, so that archives made here are taken."""
    for folder, sources in SOURCES.items():
        monkeypatch.setitem(SOURCES, folder, tuple(dataclasses.replace(source, size=None, sha256=None) for source in sources))


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


def test_a_task_arrives_in_its_folder_and_is_read(server, unknown, tmp_path):
    server.files[CB_PATH] = CB_ZIP
    report = download("CB", tmp_path, progress=False)
    assert data(tmp_path) == {f"superglue/CB/{name}": content for name, content in CB_FILES.items()}
    assert len(get_task("CB", tmp_path).examples("train")) == 20
    assert [(file.url, file.size, file.sha256, file.known) for file in report.fetched] == [
        (server.url + CB_PATH, len(CB_ZIP), hashlib.sha256(CB_ZIP).hexdigest(), False)
    ]
    assert json.loads((tmp_path / "superglue/CB" / MANIFEST).read_text())["fetched"][0]["sha256"] == report.fetched[0].sha256
    assert [path.name for path in (tmp_path / "superglue").iterdir()] == ["CB"]


def test_what_is_complete_is_not_asked_for_again(server, unknown, tmp_path):
    server.files[CB_PATH] = CB_ZIP
    download("CB", tmp_path, progress=False)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    report = download(get_task("CB", tmp_path), progress=False)
    assert report.fetched == ()
    assert len(server.requests) == 1
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_broken_connection_is_resumed_with_a_range(server, unknown, tmp_path):
    server.files[CB_PATH] = CB_ZIP
    server.orders[CB_PATH] = [("cut", 1000), ("cut", 700)]
    download("CB", tmp_path, progress=False)
    assert [request[1] for request in server.requests] == [None, "bytes=1000-", "bytes=1700-"]
    assert len({request[2] for request in server.requests[1:]} - {None}) == 1
    assert data(tmp_path) == {f"superglue/CB/{name}": content for name, content in CB_FILES.items()}


def test_a_later_command_goes_on_where_an_earlier_one_gave_up(server, unknown, tmp_path):
    server.files[CB_PATH] = CB_ZIP
    server.orders[CB_PATH] = [("cut", 1000), 503, 503, 503, 503]
    message = failure("CB", tmp_path)
    assert message.startswith(f"{server.url}{CB_PATH}: the server answered 503 Service Unavailable; 1000 bytes are kept")
    assert everything(tmp_path)["superglue/.CB.zip.partial"] == CB_ZIP[:1000]
    assert not (tmp_path / "superglue/CB").exists()
    server.requests.clear()
    download("CB", tmp_path, progress=False)
    assert [request[1] for request in server.requests] == ["bytes=1000-"]
    assert list(data(tmp_path)) == sorted(f"superglue/CB/{name}" for name in CB_FILES)


@pytest.mark.parametrize("order", ["no range", "wrong part"])
def test_a_server_that_does_not_do_ranges_right_starts_anew(server, unknown, tmp_path, order):
    server.files[CB_PATH] = CB_ZIP
    server.orders[CB_PATH] = [("cut", 1000), order]
    download("CB", tmp_path, progress=False)
    assert (tmp_path / "superglue/CB/train.jsonl").read_bytes() == ROWS
    assert server.requests[1][1] == "bytes=1000-"


@pytest.mark.parametrize("tag", ["", 'W/"weak"'])
def test_without_a_mark_of_the_version_no_range_is_asked_for(server, unknown, tmp_path, tag):
    server.files[CB_PATH], server.tags[CB_PATH] = CB_ZIP, tag
    server.orders[CB_PATH] = [("cut", 1000)]
    download("CB", tmp_path, progress=False)
    assert [request[1] for request in server.requests] == [None, None]


def test_a_file_that_changed_in_between_starts_anew(server, unknown, tmp_path):
    server.files[CB_PATH] = zip_of({f"CB/{name}": content + b"\n" for name, content in CB_FILES.items()}, zipfile.ZIP_STORED)
    server.orders[CB_PATH] = [("cut", 1000), 503, 503, 503, 503]
    failure("CB", tmp_path)
    server.files[CB_PATH] = CB_ZIP
    download("CB", tmp_path, progress=False)
    assert data(tmp_path) == {f"superglue/CB/{name}": content for name, content in CB_FILES.items()}


def test_a_server_that_ignores_the_condition_is_caught_by_the_size(server, unknown, tmp_path):
    server.files[CB_PATH], server.tags[CB_PATH] = CB_ZIP + b"x", '"same"'
    server.orders[CB_PATH] = [("cut", 1000), 503, 503, 503, 503]
    failure("CB", tmp_path)
    server.files[CB_PATH] = CB_ZIP
    download("CB", tmp_path, progress=False)
    assert data(tmp_path) == {f"superglue/CB/{name}": content for name, content in CB_FILES.items()}


@pytest.mark.parametrize("kept", [CB_ZIP, CB_ZIP + b"more"])
def test_a_partial_file_that_leaves_nothing_to_ask_for(server, unknown, tmp_path, kept):
    """A process killed before the last rename has all bytes; the server answers 416, and so it does for a file longer than its own."""
    server.files[CB_PATH] = CB_ZIP
    server.orders[CB_PATH] = [("cut", 1000), 503, 503, 503, 503]
    failure("CB", tmp_path)
    (tmp_path / "superglue/.CB.zip.partial").write_bytes(kept)
    server.requests.clear()
    download("CB", tmp_path, progress=False)
    assert len(server.requests) == (1 if kept == CB_ZIP else 2)
    assert data(tmp_path) == {f"superglue/CB/{name}": content for name, content in CB_FILES.items()}


def test_a_body_without_length_and_one_called_an_encoding(server, unknown, tmp_path):
    server.files[CB_PATH] = CB_ZIP
    server.orders[CB_PATH] = ["no length"]
    download("CB", tmp_path, progress=False)
    race = {f"RACE/{segment}/{level}/1.txt": b"{}" for segment in ("train", "dev", "test") for level in ("high", "middle")}
    server.files["/~glai1/data/race/RACE.tar.gz"] = tar_of(race)
    server.orders["/~glai1/data/race/RACE.tar.gz"] = ["gzip encoding"]
    download("RACE-M", tmp_path, progress=False)
    assert {name for name in data(tmp_path) if name.startswith("race")} == {name.replace("RACE", "race") for name in race}


@pytest.mark.parametrize("note", ["", "{", "[1]", '{"url": 1}', '{"url": "{url}", "mark": ["y"], "size": null}'])
def test_a_partial_file_whose_note_is_damaged_starts_anew(server, unknown, tmp_path, note):
    server.files[CB_PATH] = CB_ZIP
    (tmp_path / "superglue").mkdir()
    (tmp_path / "superglue/.CB.zip.partial").write_bytes(b"anything")
    (tmp_path / "superglue/.CB.zip.partial.json").write_text(note.replace("{url}", server.url + CB_PATH))
    download("CB", tmp_path, progress=False)
    assert [request[1] for request in server.requests] == [None]
    assert [path.name for path in (tmp_path / "superglue").iterdir()] == ["CB"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(server, unknown, tmp_path, status):
    server.files["/elsewhere/file"] = CB_ZIP
    server.orders[CB_PATH] = [("redirect", status, "/elsewhere/file")] * 2
    server.orders["/elsewhere/file"] = [("cut", 1000)]
    download("CB", tmp_path, progress=False)
    assert [request[:2] for request in server.requests if request[0] != CB_PATH] == [
        ("/elsewhere/file", None),
        ("/elsewhere/file", "bytes=1000-"),
    ]
    assert (tmp_path / "superglue/CB/train.jsonl").read_bytes() == ROWS


def test_a_redirect_loop_ends(server, tmp_path):
    server.orders[CB_PATH] = [("redirect", 302, CB_PATH)] * 100
    assert failure("CB", tmp_path).startswith(f"{server.url}{CB_PATH}: more than 10 redirects; name another place")
    assert len(server.requests) == 11
    assert everything(tmp_path) == {}


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://x", "http://[broken/", "data:text/plain,x"])
def test_redirects_to_other_schemes_are_refused(server, tmp_path, target):
    server.orders[CB_PATH] = [("redirect", 302, target)]
    assert "leads to what is no http or https address" in failure("CB", tmp_path)
    assert everything(tmp_path) == {}
    assert len(server.requests) == 1


def test_not_found_is_said_at_once_and_a_passing_fault_is_tried_again(server, unknown, tmp_path):
    assert "the server answered 404 Not Found; the file may have moved" in failure("CB", tmp_path)
    assert len(server.requests) == 1
    assert everything(tmp_path) == {}
    server.files[CB_PATH] = CB_ZIP
    server.orders[CB_PATH] = [500, 502, 429]
    download("CB", tmp_path, progress=False)
    assert len(server.requests) == 5


def test_no_server_at_all(server, tmp_path, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("BORT_DATA_MIRROR", f"http://127.0.0.1:{port}")
    assert re.match(rf"http://127\.0\.0\.1:{port}{CB_PATH}: no connection \(.*\); check the network", failure("CB", tmp_path))


def test_the_official_digest_is_demanded(server, tmp_path):
    server.files[CB_PATH] = CB_ZIP
    message = failure("CB", tmp_path)
    assert f"{len(CB_ZIP)} bytes with the SHA-256 {hashlib.sha256(CB_ZIP).hexdigest()}" in message
    assert f"the official file has {SOURCES['superglue/CB'][0].sha256}" in message
    server.files[CB_PATH] = b"<!DOCTYPE html><p>Sign in"
    assert "a web page where the official file has" in failure("CB", tmp_path)
    server.files[CB_PATH] = bytes(SOURCES["superglue/CB"][0].size + 1)
    for order in ("serve", "no length"):
        server.orders[CB_PATH] = [order]
        assert "where at most 75482 were expected, so it is another file" in failure("CB", tmp_path)
    assert everything(tmp_path) == {}


def test_the_right_digest_is_said_to_be_official(server, tmp_path, monkeypatch):
    known = dataclasses.replace(SOURCES["superglue/CB"][0], size=len(CB_ZIP), sha256=hashlib.sha256(CB_ZIP).hexdigest())
    monkeypatch.setitem(SOURCES, "superglue/CB", (known,))
    server.files[CB_PATH] = CB_ZIP
    assert download("CB", tmp_path, progress=False).fetched[0].known


def test_every_digest_is_one(tmp_path):
    sources = [source for group in SOURCES.values() for source in group]
    assert all(re.fullmatch("[0-9a-f]{64}", source.sha256) and source.size > 0 for source in sources)
    assert len({source.sha256 for source in sources}) == len(sources) == len({source.url for source in sources})
    assert {task.folders[0] for task in TASKS} <= set(SOURCES)


BROKEN = {
    "outside": (zip_of({"CB/train.jsonl": ROWS, "../evil.jsonl": b"x"}), "member '../evil.jsonl' points outside the folder"),
    "corrupt": (CB_ZIP.replace(b"p 3", b"p 4", 1), "the archive is damaged or cut short"),
    "cut short": (CB_ZIP[:-30], "the archive is damaged or cut short"),
    "bomb": (zip_of({"CB/train.jsonl": bytes(30_000_000)}), "member 'CB/train.jsonl' unpacks beyond"),
    "tar cut short": (tar_of({"CB/train.jsonl": ROWS})[:-20], "the archive is damaged or cut short"),
    "end of a tar missing": (gzip.compress(gzip.decompress(tar_of({"CB/train.jsonl": ROWS}))[:1024]), "cut short"),
    "web page": (b"<html>gone", "a web page, not an archive"),
    "something else": (zip_of({"CB/train.jsonl": ROWS, "CB/test.jsonl": ROWS}), "holds no val.jsonl, so it is not CB"),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("existing", [False, True])
def test_after_a_refusal_nothing_is_left_and_existing_data_are_as_they_were(server, unknown, tmp_path, name, existing):
    server.files[CB_PATH], reason = BROKEN[name]
    root = tmp_path / "root"
    (root / "superglue").mkdir(parents=True)
    if existing:
        (root / "superglue/CB").mkdir()
        (root / "superglue/CB/train.jsonl").write_bytes(b"mine")
    before = everything(tmp_path)
    message = failure("CB", root)
    assert message.startswith(f"{server.url}{CB_PATH}: ")
    assert reason in message
    assert "another place" in message
    assert everything(tmp_path) == before
    assert [path.name for path in (root / "superglue").iterdir()] == (["CB"] if existing else [])
    server.files[CB_PATH] = CB_ZIP
    report = download("CB", root, progress=False)
    assert data(root) == {f"superglue/CB/{name}": content for name, content in CB_FILES.items()} | (
        {"superglue/CB/train.jsonl": b"mine"} if existing else {}
    )
    assert report.kept == (("train.jsonl",) if existing else ())


def test_a_later_change_is_noticed(server, unknown, tmp_path):
    server.files[CB_PATH] = CB_ZIP
    download("CB", tmp_path, progress=False)
    task = get_task("CB", tmp_path)
    assert changes_since_download(task) == []
    (tmp_path / "superglue/CB/test.jsonl").write_bytes(b"{}")
    assert changes_since_download(task) == ["test.jsonl"]
    (tmp_path / "superglue/CB/test.jsonl").unlink()
    assert changes_since_download(task) == ["test.jsonl"]
    server.files[CB_PATH] = zip_of({f"CB/{name}": content for name, content in CB_FILES.items()})
    report = download("CB", tmp_path, progress=False)
    assert report.changed == (server.url + CB_PATH,)
    assert report.kept == ("train.jsonl", "val.jsonl")
    assert changes_since_download(task) == []
    for damage in ("{", "[]", '{"fetched": [], "contents": {"../x": "y"}}', '{"fetched": [1], "contents": {}}'):
        (tmp_path / "superglue/CB" / MANIFEST).write_text(damage)
        with pytest.raises(BortError, match=rf"{MANIFEST}: damaged .*; remove it"):
            changes_since_download(task)


@pytest.mark.parametrize(
    "task", [task for task in TASKS if task.folders[0] not in ("glue/MRPC", "glue/AX", "race")], ids=lambda task: task.name
)
def test_every_archive_is_looked_for_under_its_published_path_and_unpacked_to_the_official_folder(server, unknown, tmp_path, task):
    """The folder inside an archive may have any name: QQP-clean.zip holds QQP, QNLIv2.zip holds QNLI."""
    path = urlsplit(SOURCES[task.folders[0]][0].url).path
    files = {segment.file: segment.name.encode() for segment in task.segments}
    extra = {"X/original/train.tsv": b"no", "X/._train.tsv": b"no", "__MACOSX/X/._train.tsv": b"no", "X/Icon\r": b"no", "X/README": b"no"}
    server.files[path] = zip_of({"X/": b""} | {f"X/{name}": content for name, content in files.items()} | extra)
    download(task.name, tmp_path, progress=False)
    assert data(tmp_path) == {f"{task.folders[0]}/{name}": content for name, content in files.items()}
    assert all(get_task(task.name, tmp_path).is_present(segment.name) for segment in task.segments)


def test_race_comes_out_of_its_archive_for_all_three_tasks(server, unknown, tmp_path):
    articles = {
        f"{segment}/{level}/{n}.txt": b"{}" for segment in ("train", "dev", "test") for level in ("high", "middle") for n in (1, 10)
    }
    members = {f"RACE/{name}": content for name, content in articles.items()}
    server.files["/~glai1/data/race/RACE.tar.gz"] = tar_of(members | {"RACE/dev/high/._1.txt": b"no", "RACE/README": b"no"})
    download("RACE-H", tmp_path, progress=False)
    assert data(tmp_path) == {f"race/{name}": content for name, content in articles.items()}
    assert download("RACE", tmp_path, progress=False).fetched == ()
    assert changes_since_download(get_task("RACE", tmp_path)) == []
    (tmp_path / "race/dev/high/10.txt").write_bytes(b"{ }")
    assert changes_since_download(get_task("RACE-M", tmp_path)) == ["dev"]


def test_ax_is_one_file_under_another_name(server, unknown, tmp_path):
    server.files["/glue/data/AX.tsv"] = b"index\tsentence1\tsentence2\n0\ta\tb\n"
    download("AX", tmp_path, progress=False)
    assert list(data(tmp_path)) == ["glue/AX/diagnostic.tsv"]
    assert get_task("AX", tmp_path).examples("test")[0].texts == ("a", "b")


HEADER = b"\xef\xbb\xbfQuality\t#1 ID\t#2 ID\t#1 String\t#2 String"


def serve_mrpc(server, train, test, ids):
    senteval = "/senteval/senteval_data/msr_paraphrase_"
    server.files |= {f"{senteval}train.txt": train, f"{senteval}test.txt": test, "/glue/data/mrpc_dev_ids.tsv": ids}


def test_mrpc_is_put_together(server, unknown, tmp_path):
    rows = [b'%d\t%d\t%d\tfirst "%d\tsecond %d' % (n % 2, 100 + n, 200 + n, n, n) for n in range(6)]
    serve_mrpc(server, b"\r\n".join([HEADER, *rows]) + b"\r\n", b"\n".join([HEADER, *rows[:2]]), b"104\t204\n101\t201\n")
    download("MRPC", tmp_path, progress=False)
    assert data(tmp_path / "glue/MRPC") == {
        "train.tsv": b"\n".join([HEADER, rows[0], rows[2], rows[3], rows[5], b""]),
        "dev.tsv": b"\n".join([HEADER, rows[1], rows[4], b""]),
        "test.tsv": b'index\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t100\t200\tfirst "0\tsecond 0\n1\t101\t201\tfirst "1\tsecond 1\n',
    }
    task = get_task("MRPC", tmp_path)
    assert [example.label for example in task.examples("dev")] == [1, 0]
    assert task.examples("test")[1].texts == ('first "1', "second 1")


def test_mrpc_is_put_together_as_glue_did(server, unknown, tmp_path, shared):
    """The rows of GLUE's own files, shuffled back into the corpus's two, come out as GLUE's own files."""
    glue = {path.name: path.read_bytes() for path in (shared / "data/glue/MRPC").iterdir()}
    train, dev, test = (glue[f"{name}.tsv"].removesuffix(b"\n").split(b"\n") for name in ("train", "dev", "test"))
    mixed, dev_rows = train[1:], dev[1:]
    for number, place in enumerate(sorted(np.random.default_rng(0).integers(0, len(mixed), len(dev_rows)).tolist())):
        mixed.insert(place + number, dev_rows[number])
    ids = [b"\t".join(row.split(b"\t")[1:3]) for row in dev_rows]
    labelled_test = [b"1\t" + row.split(b"\t", 1)[1] for row in test[1:]]
    serve_mrpc(server, b"\n".join([train[0], *mixed]), b"\n".join([train[0], *labelled_test]), b"\n".join(reversed(ids)) + b"\n")
    download("MRPC", tmp_path, progress=False)
    assert {name: content.split(b"\n") for name, content in data(tmp_path / "glue/MRPC").items()} == {
        name: [*content.removesuffix(b"\n").split(b"\n"), b""] for name, content in glue.items()
    }


@pytest.mark.parametrize(
    ("train", "ids", "reason"),
    [
        (b"h\n1\t2\t3\ta\n", b"2\t3\n", "msr_paraphrase_train.txt, line 2: 4 columns where 5 are needed"),
        (b"h\n1\t2\t3\ta\tb\n", b"2\t4\n", "mrpc_dev_ids.tsv, line 1: the pair is not in msr_paraphrase_train.txt"),
    ],
)
def test_mrpc_of_other_files_is_refused(server, unknown, tmp_path, train, ids, reason):
    serve_mrpc(server, train, b"h\n", ids)
    assert failure("MRPC", tmp_path).startswith(reason)
    assert everything(tmp_path) == {}


def test_a_folder_as_mirror(tmp_path, unknown, monkeypatch):
    archive = tmp_path / f"mirror{CB_PATH}"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(CB_ZIP)
    monkeypatch.setenv("BORT_DATA_MIRROR", str(tmp_path / "mirror"))
    report = download("CB", tmp_path / "root", progress=False)
    assert report.fetched[0].url == str(archive)
    assert archive.read_bytes() == CB_ZIP
    assert list(data(tmp_path / "root")) == sorted(f"superglue/CB/{name}" for name in CB_FILES)
    assert f"{tmp_path}/mirror/glue/superglue/data/v2/COPA.zip: no such file; BORT_DATA_MIRROR is" in failure(
        dataclasses.replace(get_task("CB"), name="COPA", folders=("superglue/COPA",)), tmp_path / "root"
    )
    archive.write_bytes(CB_ZIP[:100])
    assert failure("CB", tmp_path / "other").startswith(f"{archive}: the archive is damaged")
    assert archive.exists()


def test_credentials_of_a_mirror_are_used_and_not_shown(server, unknown, tmp_path, monkeypatch):
    monkeypatch.setenv("BORT_DATA_MIRROR", server.url.replace("//", "//name:secret@"))
    assert "secret" not in failure("CB", tmp_path)
    server.files[CB_PATH] = CB_ZIP
    assert download("CB", tmp_path, progress=False).fetched[0].url == server.url + CB_PATH
    assert server.requests[-1][3].startswith("Basic ")
    assert all(b"secret" not in content for content in everything(tmp_path).values())


KNOWS_NO_DIGEST = """
import dataclasses, sys
from bort.tasks.download import SOURCES, download
SOURCES["superglue/CB"] = tuple(dataclasses.replace(source, size=None, sha256=None) for source in SOURCES["superglue/CB"])
"""


def test_processes_that_ask_for_one_task_fetch_it_once(server, tmp_path):
    server.files[CB_PATH] = CB_ZIP
    program = KNOWS_NO_DIGEST + "print(len(download('CB', sys.argv[1]).fetched))\n"
    processes = [subprocess.Popen([sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert sorted(process.communicate()[0] for process in processes) == ["0\n", "0\n", "1\n"]
    assert len(server.requests) == 1


def test_a_killed_download_goes_on(server, unknown, tmp_path):
    """Killed while it waits for bytes that do not come; what had arrived is on the disk and is not asked for again."""
    server.files[CB_PATH] = zip_of({f"CB/{name}": os.urandom(300_000) for name in CB_FILES}, zipfile.ZIP_STORED)
    server.orders[CB_PATH] = [("stall", 600_000)]
    process = subprocess.Popen([sys.executable, "-c", KNOWS_NO_DIGEST + "download('CB', sys.argv[1])\n", tmp_path])
    partial = tmp_path / "superglue/.CB.zip.partial"
    while not (partial.exists() and partial.stat().st_size > 500_000):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    server.release.set()
    kept = partial.stat().st_size
    download("CB", tmp_path, progress=False)
    assert server.requests[-1][1] == f"bytes={kept}-"
    assert sorted(data(tmp_path / "superglue/CB")) == sorted(CB_FILES)


def test_what_a_killed_process_left_is_cleared_away(server, unknown, tmp_path):
    server.files[CB_PATH] = CB_ZIP
    (tmp_path / "superglue/.CB.abc123.partial/unpacked").mkdir(parents=True)
    (tmp_path / "superglue/.CB.abc123.partial/CB.zip").write_bytes(CB_ZIP)
    (tmp_path / "superglue/.COPA.abc123.partial").mkdir()
    download("CB", tmp_path, progress=False)
    assert sorted(path.name for path in (tmp_path / "superglue").iterdir()) == [".COPA.abc123.partial", "CB"]


def test_a_full_disk_leaves_no_folder(server, unknown, tmp_path):
    """A limit on the size of files stands for the disk's."""
    server.files[CB_PATH] = zip_of({f"CB/{name}": bytes(300_000) for name in CB_FILES})
    program = KNOWS_NO_DIGEST + (
        "import resource\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "from bort.cli import main\n"
        "sys.exit(main(['tasks', 'download', 'CB', '--data_root', sys.argv[1]]))\n"
    )
    process = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=False)
    assert process.returncode == 2
    assert re.fullmatch(r"bort: error: .*File too large; check the file and the disk\n", process.stderr)
    assert everything(tmp_path) == {}
    assert list((tmp_path / "superglue").iterdir()) == []
