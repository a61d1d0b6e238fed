"""One file over HTTP: connections that break, servers that cannot do ranges, redirects, faults that pass and faults that stay."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import zipfile

import pytest

from bort.tasks.download import download

from .download_cases import CB_FILES, CB_PATH, CB_ZIP, ROWS, data, everything, failure, program, tar_of, zip_of


def test_a_broken_connection_is_resumed_with_a_range(server, publish, tmp_path):
    publish(CB_PATH, CB_ZIP)
    server.orders[CB_PATH] = [("cut", 1000), ("cut", 700)]
    download("CB", tmp_path, progress=False)
    assert [request[1] for request in server.requests] == [None, "bytes=1000-", "bytes=1700-"]
    assert len({request[2] for request in server.requests[1:]} - {None}) == 1
    assert data(tmp_path) == {f"superglue/CB/{name}": content for name, content in CB_FILES.items()}


def test_a_later_command_resumes_where_an_earlier_one_gave_up(server, publish, tmp_path):
    publish(CB_PATH, CB_ZIP)
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
def test_a_server_that_does_not_do_ranges_right_starts_anew(server, publish, tmp_path, order):
    publish(CB_PATH, CB_ZIP)
    server.orders[CB_PATH] = [("cut", 1000), order]
    download("CB", tmp_path, progress=False)
    assert (tmp_path / "superglue/CB/train.jsonl").read_bytes() == ROWS
    assert server.requests[1][1] == "bytes=1000-"


@pytest.mark.parametrize("tag", ["", 'W/"weak"'])
def test_without_a_mark_of_the_version_no_range_is_asked_for(server, publish, tmp_path, tag):
    publish(CB_PATH, CB_ZIP)
    server.tags[CB_PATH] = tag
    server.orders[CB_PATH] = [("cut", 1000)]
    download("CB", tmp_path, progress=False)
    assert [request[1] for request in server.requests] == [None, None]


def test_a_file_that_changed_in_between_starts_anew(server, publish, tmp_path):
    publish(CB_PATH, zip_of({f"CB/{name}": content + b"\n" for name, content in CB_FILES.items()}, zipfile.ZIP_STORED))
    server.orders[CB_PATH] = [("cut", 1000), 503, 503, 503, 503]
    failure("CB", tmp_path)
    publish(CB_PATH, CB_ZIP)
    download("CB", tmp_path, progress=False)
    assert data(tmp_path) == {f"superglue/CB/{name}": content for name, content in CB_FILES.items()}


def test_a_server_that_ignores_the_condition_is_caught_by_the_size(server, publish, tmp_path):
    publish(CB_PATH, CB_ZIP + b"x")
    server.tags[CB_PATH] = '"same"'
    server.orders[CB_PATH] = [("cut", 1000), 503, 503, 503, 503]
    failure("CB", tmp_path)
    publish(CB_PATH, CB_ZIP)
    download("CB", tmp_path, progress=False)
    assert data(tmp_path) == {f"superglue/CB/{name}": content for name, content in CB_FILES.items()}


@pytest.mark.parametrize("kept", [CB_ZIP, CB_ZIP + b"more"])
def test_a_partial_file_that_leaves_nothing_to_ask_for(server, publish, tmp_path, kept):
    """A process killed before the last rename has all bytes; the server answers 416, and so it does for a file longer than its own."""
    publish(CB_PATH, CB_ZIP)
    server.orders[CB_PATH] = [("cut", 1000), 503, 503, 503, 503]
    failure("CB", tmp_path)
    (tmp_path / "superglue/.CB.zip.partial").write_bytes(kept)
    server.requests.clear()
    download("CB", tmp_path, progress=False)
    assert len(server.requests) == (1 if kept == CB_ZIP else 2)
    assert data(tmp_path) == {f"superglue/CB/{name}": content for name, content in CB_FILES.items()}


def test_a_body_without_length_and_one_called_an_encoding(server, publish, tmp_path):
    publish(CB_PATH, CB_ZIP)
    server.orders[CB_PATH] = ["no length"]
    download("CB", tmp_path, progress=False)
    race = {f"RACE/{segment}/{level}/1.txt": b"{}" for segment in ("train", "dev", "test") for level in ("high", "middle")}
    publish("/~glai1/data/race/RACE.tar.gz", tar_of(race))
    server.orders["/~glai1/data/race/RACE.tar.gz"] = ["gzip encoding"]
    download("RACE-M", tmp_path, progress=False)
    assert {name for name in data(tmp_path) if name.startswith("race")} == {name.replace("RACE", "race") for name in race}


@pytest.mark.parametrize("note", ["", "{", "[1]", '{"url": 1}', '{"url": "{url}", "mark": ["y"], "size": null}'])
def test_a_partial_file_whose_note_is_damaged_starts_anew(server, publish, tmp_path, note):
    publish(CB_PATH, CB_ZIP)
    (tmp_path / "superglue").mkdir()
    (tmp_path / "superglue/.CB.zip.partial").write_bytes(b"anything")
    (tmp_path / "superglue/.CB.zip.partial.json").write_text(note.replace("{url}", server.url + CB_PATH))
    download("CB", tmp_path, progress=False)
    assert [request[1] for request in server.requests] == [None]
    assert [path.name for path in (tmp_path / "superglue").iterdir()] == ["CB"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(server, make_official, tmp_path, status):
    make_official(CB_PATH, CB_ZIP)
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


def test_not_found_is_said_at_once_and_a_passing_fault_is_tried_again(server, publish, tmp_path):
    assert "the server answered 404 Not Found; the file may have moved" in failure("CB", tmp_path)
    assert len(server.requests) == 1
    assert everything(tmp_path) == {}
    publish(CB_PATH, CB_ZIP)
    server.orders[CB_PATH] = [500, 502, 429]
    download("CB", tmp_path, progress=False)
    assert len(server.requests) == 5


def test_no_server_at_all(server, tmp_path, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("BORT_DATA_MIRROR", f"http://127.0.0.1:{port}")
    assert re.match(rf"http://127\.0\.0\.1:{port}{CB_PATH}: no connection \(.*\); check the network", failure("CB", tmp_path))


def test_credentials_of_a_mirror_are_used_and_not_shown(server, publish, tmp_path, monkeypatch):
    monkeypatch.setenv("BORT_DATA_MIRROR", server.url.replace("//", "//name:secret@"))
    assert "secret" not in failure("CB", tmp_path)
    publish(CB_PATH, CB_ZIP)
    assert download("CB", tmp_path, progress=False).fetched[0].url == server.url + CB_PATH
    assert server.requests[-1][3].startswith("Basic ")
    assert all(b"secret" not in content for content in everything(tmp_path).values())


def test_a_killed_download_is_resumed(server, publish, tmp_path):
    """Killed while it waits for bytes that do not come; what had arrived is on the disk and is not asked for again."""
    archive = zip_of({f"CB/{name}": os.urandom(300_000) for name in CB_FILES}, zipfile.ZIP_STORED)
    publish(CB_PATH, archive)
    server.orders[CB_PATH] = [("stall", 600_000)]
    process = subprocess.Popen([sys.executable, "-c", program(archive, "download('CB', sys.argv[1])\n"), tmp_path])
    partial = tmp_path / "superglue/.CB.zip.partial"
    deadline = time.monotonic() + 60
    while not (partial.exists() and partial.stat().st_size > 500_000):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    server.release.set()
    kept = partial.stat().st_size
    download("CB", tmp_path, progress=False)
    assert server.requests[-1][1] == f"bytes={kept}-"
    assert sorted(data(tmp_path / "superglue/CB")) == sorted(CB_FILES)


def test_a_server_that_ignores_the_condition_but_says_that_the_file_is_another(server, publish, tmp_path):
    """The sizes are the same, so that nothing but the mark tells the two apart."""
    publish(CB_PATH, CB_ZIP)
    server.tags[CB_PATH] = '"same"'
    server.orders[CB_PATH] = [("cut", 1000), "another mark"]
    download("CB", tmp_path, progress=False)
    # Without the mark, one request for the rest would have done.
    assert [request[1] for request in server.requests] == [None, "bytes=1000-", None]


@pytest.mark.parametrize("header", ["Content-Length", "Content-Range"])
def test_a_size_that_is_none_does_not_count(server, publish, tmp_path, header):
    publish(CB_PATH, CB_ZIP)
    digits = "9" * 5000
    if header == "Content-Length":
        server.orders[CB_PATH] = [{header: digits}]
    else:
        server.orders[CB_PATH] = [("cut", 1000), {header: f"bytes 1000-{digits}/{digits}"}]
    download("CB", tmp_path, progress=False)
    assert data(tmp_path) == {f"superglue/CB/{name}": content for name, content in CB_FILES.items()}
