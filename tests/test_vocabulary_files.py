"""Where a vocabulary is found: every place in its turn, real servers with good and bad files, and errors that name places and remedies."""

from __future__ import annotations

import hashlib
import http.server
import shutil
import socket
import threading
from functools import partial
from pathlib import Path

import pytest

from bort import BortError, Tokenizer, vocabulary_files
from bort.byte_pair import Gigatoken, train_merges
from bort.tokenizer import PUBLISHED_FILES, PUBLISHED_NAME
from bort.vocabulary_files import find_tokenizer


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch) -> dict[str, Path]:
    """Empty places to look in; the working directory is ``tmp_path``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MXNET_HOME", str(tmp_path / "mxnet"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "huggingface"))
    monkeypatch.delenv("BORT_VOCAB_MIRROR", raising=False)
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    snapshot = tmp_path / "huggingface" / "hub" / "models--FacebookAI--roberta-large" / "snapshots" / "0123abcd"
    return {"model": tmp_path / "model", "mxnet": tmp_path / "mxnet" / "models", "snapshot": snapshot}


@pytest.fixture(scope="module")
def small() -> Tokenizer:
    return Tokenizer(Gigatoken(*train_merges(["a small vocabulary"] * 9, 270)))


def _poison(directory: Path, names=("vocab.json", "merges.txt")) -> None:
    """Put files there that nobody could read without an error."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in names:
        (directory / name).write_text("poison")


def _give_roberta(shared: Path, directory: Path) -> None:
    shutil.copytree(shared / "data" / "vocab", directory)


def test_a_directory_given_is_the_only_place(places, small, tmp_path):
    _poison(places["model"])
    small.save(tmp_path / "given")
    assert find_tokenizer("given").vocab == small.vocab
    assert find_tokenizer(tmp_path / "given", PUBLISHED_NAME).vocab == small.vocab
    with pytest.raises(BortError, match=r"^absent: no vocabulary there"):
        find_tokenizer("absent")


def test_the_model_folder_comes_second(places, small):
    _poison(places["mxnet"], PUBLISHED_FILES)
    small.save("model")
    assert find_tokenizer().vocab == small.vocab


def test_a_name_asks_for_that_vocabulary_only(small):
    small.save("model")
    with pytest.raises(BortError, match=f'^model: holds another vocabulary than "{PUBLISHED_NAME}"; .*--vocab model$'):
        find_tokenizer(None, PUBLISHED_NAME)


def test_half_a_vocabulary_in_the_model_folder_is_an_error(places):
    _poison(places["model"], ["vocab.json"])
    with pytest.raises(BortError, match=r"model: holds vocab\.json but not merges\.txt"):
        find_tokenizer()


def test_gluonnlps_folder_comes_third(places, shared):
    Tokenizer.from_directory(shared / "data" / "vocab").save_gluonnlp(places["mxnet"])
    _poison(places["snapshot"])
    assert find_tokenizer(None, PUBLISHED_NAME).is_published
    assert find_tokenizer().is_published


def test_gluonnlps_folder_is_at_home_by_default(places, shared, tmp_path, monkeypatch):
    monkeypatch.delenv("MXNET_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    Tokenizer.from_directory(shared / "data" / "vocab").save_gluonnlp(tmp_path / "home" / ".mxnet" / "models")
    assert find_tokenizer().is_published


def test_a_damaged_file_of_gluonnlp_is_named_with_both_sums(places):
    _poison(places["mxnet"], PUBLISHED_FILES)
    with pytest.raises(BortError) as error:
        find_tokenizer()
    table, expected = next(iter(PUBLISHED_FILES.items()))
    found = hashlib.sha1(b"poison").hexdigest()
    assert str(error.value).startswith(f"{places['mxnet'] / table}: damaged: its SHA-1 is {found}, not {expected}; ")


@pytest.mark.parametrize("repository", ["roberta-base", "roberta-large", "FacebookAI--roberta-base", "FacebookAI--roberta-large"])
def test_a_snapshot_of_hugging_face_comes_fourth(shared, tmp_path, monkeypatch, repository):
    monkeypatch.setenv("BORT_VOCAB_MIRROR", (tmp_path / "absent").as_uri())
    hub = tmp_path / "huggingface" / "hub"
    (hub / f"models--{repository}" / "snapshots" / "0000" / "empty").mkdir(parents=True)
    _give_roberta(shared, hub / f"models--{repository}" / "snapshots" / "1111")
    assert find_tokenizer().is_published


def test_a_snapshot_with_another_vocabulary_is_an_error(places, small):
    small.save(places["snapshot"])
    with pytest.raises(BortError, match=f"^{places['snapshot']}: holds another vocabulary"):
        find_tokenizer()


def test_an_unknown_name():
    with pytest.raises(BortError, match=f'^no vocabulary is known by the name "book_corpus"; known is {PUBLISHED_NAME}'):
        find_tokenizer(None, "book_corpus")


def test_found_nowhere(places, tmp_path):
    with pytest.raises(BortError) as error:
        find_tokenizer()
    looked_at = f"model/, {places['mxnet']}, {tmp_path / 'huggingface' / 'hub'}"
    assert str(error.value) == (
        f'no vocabulary "{PUBLISHED_NAME}" in {looked_at}; give --vocab DIR, or set BORT_VOCAB_MIRROR to a URL that serves '
        "RoBERTa's vocab.json and merges.txt, or train one: bort vocab train --help"
    )


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; also an endless file, a file cut off in the middle, and a reply that never comes."""

    def do_GET(self) -> None:
        if self.path.startswith("/endless/"):
            self.send_response(200)
            self.end_headers()
            try:
                while True:
                    self.wfile.write(b"x" * 65536)
                    self.server.sent += 65536
            except OSError:
                return
        elif self.path.startswith("/cut/"):
            self.send_response(200)
            self.send_header("Content-Length", "898823")
            self.end_headers()
            self.wfile.write(b"{" * 1000)
        elif self.path.startswith("/silent/"):
            self.server.released.wait(30)
        else:
            super().do_GET()

    def log_message(self, *_args) -> None:
        pass


@pytest.fixture
def server(tmp_path):
    """A running server of ``tmp_path / "www"``."""
    (tmp_path / "www").mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=str(tmp_path / "www"))) as server:
        server.sent = 0
        server.released = threading.Event()
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        yield server
        server.released.set()
        server.shutdown()


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_a_mirror_comes_last_and_is_asked_once(shared, server, tmp_path, monkeypatch, scheme, places):
    _give_roberta(shared, tmp_path / "www" / "roberta")
    folder = f"http://127.0.0.1:{server.server_port}" if scheme == "http" else (tmp_path / "www").as_uri()
    monkeypatch.setenv("BORT_VOCAB_MIRROR", f"{folder}/roberta/")
    assert find_tokenizer(None, PUBLISHED_NAME).is_published
    assert {file.name for file in places["mxnet"].iterdir()} == set(PUBLISHED_FILES)
    shutil.rmtree(tmp_path / "www" / "roberta")
    assert find_tokenizer(None, PUBLISHED_NAME).is_published


@pytest.mark.parametrize(
    ("folder", "complaint"),
    [
        ("absent", "/absent/vocab.json: cannot fetch it: (File )?[Nn]ot [Ff]ound"),
        ("wrong", "/wrong/vocab.json: not RoBERTa's file: SHA-256 [0-9a-f]{64}, not 9e7f63c2"),
        ("short", "/short/vocab.json: not RoBERTa's file: 2 of 898823 bytes"),
        ("cut", "/cut/vocab.json: (not RoBERTa's file: 1000 of 898823 bytes|cannot fetch it: )"),
        ("endless", "/endless/vocab.json: not RoBERTa's file: SHA-256"),
        ("silent", "/silent/vocab.json: cannot fetch it: .*timed out"),
    ],
)
def test_a_bad_mirror_leaves_nothing_behind(server, tmp_path, monkeypatch, folder, complaint, places):
    monkeypatch.setattr(vocabulary_files, "_TIMEOUT", 1.0)
    for name, contents in (("wrong", "x" * 898823), ("short", "{}")):
        (tmp_path / "www" / name).mkdir()
        (tmp_path / "www" / name / "vocab.json").write_text(contents)
    monkeypatch.setenv("BORT_VOCAB_MIRROR", f"http://127.0.0.1:{server.server_port}/{folder}")
    with pytest.raises(BortError, match=f"{complaint}.*; mend BORT_VOCAB_MIRROR, or give --vocab DIR$") as error:
        find_tokenizer()
    assert "\n" not in str(error.value)
    assert not places["mxnet"].exists()
    assert server.sent < 30_000_000


def test_a_good_table_with_bad_merges_leaves_nothing_behind(shared, server, tmp_path, monkeypatch, places):
    _give_roberta(shared, tmp_path / "www" / "half")
    (tmp_path / "www" / "half" / "merges.txt").chmod(0o644)
    (tmp_path / "www" / "half" / "merges.txt").write_text("#version: 0.2\n")
    monkeypatch.setenv("BORT_VOCAB_MIRROR", f"http://127.0.0.1:{server.server_port}/half")
    with pytest.raises(BortError, match=r"half/merges\.txt: not RoBERTa's file: 14 of 456318 bytes"):
        find_tokenizer()
    assert not places["mxnet"].exists()


@pytest.mark.parametrize(
    ("mirror", "complaint"),
    [
        ("ftp://127.0.0.1/x", "must begin with http://, https:// or file://"),
        ("roberta", "must begin with http://, https:// or file://"),
        ("http://127.0.0.1:bad/", "cannot fetch it"),
        ("http://127.0.0.1:{closed}/", "cannot fetch it: .*refused"),
        ("file:///absent", "cannot fetch it: .*[Nn]o such file"),
    ],
)
def test_a_mirror_that_is_none(monkeypatch, mirror, complaint):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("BORT_VOCAB_MIRROR", mirror.format(closed=closed.getsockname()[1]))
        with pytest.raises(BortError, match=f"vocab.json: .*{complaint}") as error:
            find_tokenizer()
    assert "\n" not in str(error.value)
