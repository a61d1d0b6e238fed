"""``bort data`` as a process: killed at any moment, short of disk, and with more text than memory."""

from __future__ import annotations

import contextlib
import gzip
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bort.cli import main
from bort.corpus.shards import Corpus, shard_names
from bort.parameters import map_safetensors

NUM_SHARDS = 8


@pytest.fixture(scope="module")
def vocabulary(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("vocabulary")
    tokenizer.save(folder)
    return folder


@pytest.fixture(scope="module")
def text(repository, tmp_path_factory):
    """60 MB in two files, one of them compressed: paragraphs of test_data/corpus in random order."""
    paragraphs = "\n\n".join(path.read_text(encoding="utf-8") for path in sorted((repository / "test_data/corpus").glob("*.txt"))).split(
        "\n\n"
    )
    folder = tmp_path_factory.mktemp("text")
    shuffled = random.Random(0)
    for name in ("a.txt", "b.txt"):
        with (folder / name).open("w", encoding="utf-8") as file:
            while file.tell() < 30_000_000:
                file.write("\n\n".join(shuffled.choices(paragraphs, k=500)) + "\n\n")
    with (folder / "b.txt").open("rb") as plain, gzip.open(folder / "b.txt.gz", "wb", compresslevel=1) as packed:
        shutil.copyfileobj(plain, packed)
    (folder / "b.txt").unlink()
    return folder


def command(text, output, vocabulary, *options):
    options = ("--num_outputs", NUM_SHARDS, "--max_seq_length", 64, *options)
    return [sys.executable, "-m", "bort", "data", "--input", text, "--output", output, "--vocab", vocabulary, *map(str, options)]


@pytest.fixture(scope="module")
def uninterrupted(text, vocabulary, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    subprocess.run(command(text, folder, vocabulary), check=True, capture_output=True)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def shards_in(folder):
    """Bytes of what has a final name, each a whole file."""
    for path in folder.glob("shard_*"):
        map_safetensors(path)
    return {path.name: path.read_bytes() for path in folder.glob("shard_*")}


def workers_of(process):
    with contextlib.suppress(FileNotFoundError):
        return [int(child) for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    return []


def wait_for(condition, process):
    end = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_again_and_again_it_goes_on_and_ends_with_the_same_bytes(text, vocabulary, uninterrupted, tmp_path, workers):
    arguments = command(text, tmp_path / "out", vocabulary, "--num_workers", workers)
    seen_workers = 0

    def done():
        paths = [*tmp_path.glob("out/shard_*"), *tmp_path.glob("out/.work/p*")]
        return {path.name for path in paths if path.suffix != ".partial"}

    for progress in (1, 1, 2, 4):
        before = done()
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        wait_for(lambda: len(done() - before) >= progress, process)  # noqa: B023
        children = workers_of(process)
        seen_workers = max(seen_workers, len(children))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        process.communicate()
        found = shards_in(tmp_path / "out")
        assert found == {name: uninterrupted[name] for name in found}
        end = time.monotonic() + 20
        while any(Path(f"/proc/{child}").exists() for child in children):
            assert time.monotonic() < end, "a worker outlives its parent"
            time.sleep(0.05)
    assert seen_workers == (workers if workers > 1 else 0)
    kept = len(found)
    times = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in found}
    finished = subprocess.run(arguments, capture_output=True, text=True)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert kept >= 1
    assert f"kept {kept} finished shards; " in finished.stdout
    assert times == {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in times}
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == uninterrupted


def test_a_killed_worker_is_one_line_and_the_next_run_goes_on(text, vocabulary, uninterrupted, tmp_path):
    arguments = command(text, tmp_path / "out", vocabulary, "--num_workers", 2)
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: list((tmp_path / "out").glob(".work/piece_*[0-9]")) and len(workers_of(process)) == 2, process)
    os.kill(workers_of(process)[1], signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert errors == "bort: error: a worker process ended abruptly: killed, or out of memory; run again to go on where it stopped\n"
    finished = subprocess.run(arguments, capture_output=True, text=True)
    assert "bytes were done before" in finished.stdout
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == uninterrupted


@pytest.mark.parametrize("workers", [1, 2])
def test_no_room_is_one_line_and_nothing_half_written(text, vocabulary, uninterrupted, tmp_path, workers):
    """A limit on the size of files stands for a full disk: the write fails halfway through the first shard."""
    arguments = command(text, tmp_path / "out", vocabulary, "--num_workers", workers)
    limit = len(uninterrupted[shard_names(NUM_SHARDS)[0]]) // 2
    process = subprocess.run(
        arguments, capture_output=True, text=True, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    )
    assert process.returncode == 2
    assert process.stderr.startswith(f"bort: error: {tmp_path / 'out'}")
    assert "cannot write shards: File too large; make room" in process.stderr
    assert process.stderr.count("\n") == 1
    assert shards_in(tmp_path / "out") == {}
    subprocess.run(arguments, check=True, capture_output=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == uninterrupted


MEASURED = """
import re, resource, sys
from bort.cli import main
status = main(sys.argv[1:])
# Not ru_maxrss for this process: that counts what the parent had at the fork.
own = re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]
print(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(status)
"""


def peak_megabytes(text, output, vocabulary, workers):
    """Largest resident memory in MB of the command, its workers added as if they shared nothing."""
    arguments = ["data", "--input", text, "--output", output, "--vocab", vocabulary, "--num_workers", workers]
    done = subprocess.run([sys.executable, "-c", MEASURED, *map(str, arguments)], capture_output=True, text=True, check=True)
    own, largest_child = map(int, done.stdout.splitlines()[-1].split())
    return (own + (workers * largest_child if workers > 1 else 0)) / 1000


def test_a_file_and_a_document_larger_than_the_memory_allowed(vocabulary, repository, tmp_path):
    """860 MB in one file, half of it one document, within 400 MB for all processes together; needs 3 GB of disk."""
    if shutil.disk_usage(tmp_path).free < 5e9:
        pytest.skip("not enough room: the test writes 3 GB")
    text = "\n\n".join(path.read_text(encoding="utf-8") for path in sorted((repository / "test_data/corpus").glob("*.txt"))) + "\n\n"
    documents = (text * (16_000_000 // len(text.encode()))).encode()
    one_document = re.sub(rb"\n\s*\n", b"\n", documents)
    with (tmp_path / "text.txt").open("wb") as file:
        while file.tell() < 430_000_000:
            file.write(one_document)
        file.write(b"\n")
        while file.tell() < 860_000_000:
            file.write(documents)
    assert peak_megabytes(tmp_path / "text.txt", tmp_path / "out", vocabulary, workers=2) < 400
    corpus = Corpus(tmp_path / "out")
    assert corpus.description["text_bytes"] == (tmp_path / "text.txt").stat().st_size
    assert corpus.lengths.sum() == corpus.description["tokens"]
    document_ends = map_safetensors(tmp_path / "out" / shard_names(1)[0])[0]["document_ends"]
    assert document_ends[0] > 119_000_000
    assert len(document_ends) > 66_000
    shutil.rmtree(tmp_path)


def test_words_that_never_come_again_are_not_remembered(vocabulary, tmp_path):
    """The tokenizer's library keeps every word that it has met: 80 MB of random words would be some 700 MB."""
    random_bytes = np.random.default_rng(0)
    with (tmp_path / "words.txt").open("wb") as file:
        for _ in range(40):
            letters = random_bytes.integers(ord("a"), ord("z") + 1, size=2_000_000, dtype=np.uint8)
            letters[random_bytes.random(len(letters)) < 0.12] = ord(" ")
            letters[::100] = ord("\n")
            file.write(letters.tobytes())
    assert peak_megabytes(tmp_path / "words.txt", tmp_path / "out", vocabulary, workers=1) < 500


def test_odd_text_is_counted_and_told(vocabulary, tmp_path, capfd):
    odd = tmp_path / "odd.txt"
    odd.write_bytes(b"\xef\xbb\xbfcaf\xe9\nnul \0\n\n" + b"word " * 2_000_000 + b"\nlast")
    (tmp_path / "empty.txt").write_bytes(b"")
    options = ["--input", str(tmp_path), "--output", str(tmp_path / "out"), "--vocab", str(vocabulary), "--num_outputs", "3"]
    assert main(["data", *options]) == 0
    captured = capfd.readouterr()
    assert captured.out.startswith("2 documents, 13 sentences from 2 files → ")
    assert captured.err.splitlines() == [
        f"bort: warning: {line}"
        for line in [
            f"lines with what is no character, such as bytes that are not UTF-8, which became U+FFFD: 1; the first: {odd}, byte 3",
            f"lines with U+0000, which was kept (is the input text?): 1; the first: {odd}, byte 8",
            f"lines of more than 1048576 bytes, which were cut into several sentences: 1; the first: {odd}, byte 15",
            "2 empty shards: the text has 2 documents, too few or too large for so many shards",
        ]
    ]
    assert main(["data", *options]) == 0
    assert "kept 3 finished shards; 10000020 of 10000020 bytes were done before" in capfd.readouterr().out


def test_a_warning_is_one_line_whatever_a_file_is_called(vocabulary, tmp_path, capfd):
    odd = tmp_path / "a\x1b[1m\u2028b.txt"
    odd.write_bytes(b"caf\xe9\n\nmore\n")
    assert main(["data", "--input", str(odd), "--output", str(tmp_path / "out"), "--vocab", str(vocabulary), "--num_outputs", "1"]) == 0
    (line,) = capfd.readouterr().err.splitlines()
    assert line.isprintable()
    assert r"a\x1b[1m\u2028b.txt, byte 0" in line


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize(
    ("name", "content", "options", "complaint"),
    [
        ("a.jsonl", b'{"text": "a"}\n{"text"\n', ["--documents", "jsonl"], "a.jsonl, line 2: not JSON: Expecting ':' delimiter"),
        ("a.jsonl", b'{"body": "a"}\n', ["--documents", "jsonl"], "a.jsonl, line 1: it has no 'text'; give the key"),
        ("a.txt.gz", gzip.compress(b"text " * 9000, mtime=0)[:-9], [], "a.txt.gz: damaged or incomplete: "),
        ("a.txt", b"", [], "a.txt: no text in it; give files"),
        ("a.txt", b"text", ["--num_workers", "0"], "num_workers must be at least 1, got 0"),
        ("a.txt", b"text", ["--dupe_factor", "2"], "options of masks need --format npz"),
    ],
)
def test_what_the_user_did_wrong_is_one_line(vocabulary, tmp_path, capfd, workers, name, content, options, complaint):
    (tmp_path / name).write_bytes(content)
    arguments = ["--input", str(tmp_path / name), "--output", str(tmp_path / "out"), "--vocab", str(vocabulary), "--num_workers", workers]
    assert main(["data", *arguments, *options]) == 2
    errors = capfd.readouterr().err
    assert complaint in errors
    assert errors.startswith("bort: error: ")
    assert errors.count("\n") == 1
    assert not list(tmp_path.glob("out/shard_*"))


def test_npz_files_come_from_the_same_command(vocabulary, repository, tmp_path, capfd):
    options = ["--input", str(repository / "test_data/corpus"), "--output", str(tmp_path), "--vocab", str(vocabulary), "--num_outputs", "2"]
    assert main(["data", *options, "--format", "npz", "--dupe_factor", "2", "--max_seq_length", "64"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shard_0000_of_0002.npz", "shard_0001_of_0002.npz"]
    sequences = int(re.search(r"(\d+) sequences", capfd.readouterr().out)[1])
    assert sum(len(np.load(path)["input_ids"]) for path in tmp_path.iterdir()) == 2 * sequences
