"""Compressed text: every form of both formats comes back whole, and damage is an error that names the file."""

from __future__ import annotations

import gzip
import io
import random
import subprocess
import sys

import pytest
import zstandard

from bort import BortError
from bort.corpus.compression import decompress, is_compressed

TEXT = "".join(random.Random(0).choices("abcdefgh \n", k=300_000)).encode()


def zstd_stream(data):
    """As the zstd program writes it: without the size in the header, with a checksum."""
    target = io.BytesIO()
    with zstandard.ZstdCompressor(write_checksum=True).stream_writer(target, closefd=False) as writer:
        writer.write(data)
    return target.getvalue()


FORMS = {
    "one.gz": gzip.compress(TEXT),
    "members.gz": gzip.compress(TEXT[:1000]) + gzip.compress(TEXT[1000:]),
    "UPPER.GZ": gzip.compress(TEXT),
    "one.zst": zstandard.compress(TEXT),
    "stream.zst": zstd_stream(TEXT),
    "frames.zst": zstandard.compress(TEXT[:1000]) + zstd_stream(TEXT[1000:200_000]) + zstandard.compress(TEXT[200_000:]),
    "skippable.zst": b"\x50\x2a\x4d\x18\x04\x00\x00\x00skip" + zstd_stream(TEXT),
}


@pytest.mark.parametrize("name", FORMS)
def test_text_comes_back(tmp_path, name):
    (tmp_path / name).write_bytes(FORMS[name])
    assert is_compressed(tmp_path / name)
    decompress(tmp_path / name, tmp_path / "plain")
    assert (tmp_path / "plain").read_bytes() == TEXT


@pytest.mark.parametrize("name", ["empty.gz", "empty.zst"])
def test_no_text_is_no_error(tmp_path, name):
    contents = {"empty.gz": gzip.compress(b""), "empty.zst": zstandard.compress(b"")}
    (tmp_path / name).write_bytes(contents[name])
    decompress(tmp_path / name, tmp_path / "plain")
    assert (tmp_path / "plain").read_bytes() == b""


def flipped(data):
    """Sixty-four bytes in the middle are others."""
    middle = len(data) // 2
    return data[:middle] + bytes(byte ^ 0xFF for byte in data[middle : middle + 64]) + data[middle + 64 :]


DAMAGES = {
    "gone": lambda _: b"",
    "cut": lambda data: data[: len(data) // 2],
    "cut a little": lambda data: data[:-3],
    "not compressed": lambda _: TEXT,
}
CASES = [(name, damage) for name in ("one.gz", "members.gz", "one.zst", "stream.zst", "frames.zst") for damage in DAMAGES.values()]


# Zstandard notices a wrong byte only where the writer added a checksum, which its program does.
@pytest.mark.parametrize(("name", "damage"), [*CASES, ("one.gz", flipped), ("members.gz", flipped), ("stream.zst", flipped)])
def test_damage_is_named_and_leaves_nothing(tmp_path, name, damage):
    (tmp_path / name).write_bytes(damage(FORMS[name]))
    with pytest.raises(BortError, match=rf"^{tmp_path / name}: damaged or incomplete: [^\n]+; copy or download it again$"):
        decompress(tmp_path / name, tmp_path / "plain")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_bomb_is_taken_in_small_portions(tmp_path):
    """What 8 KB of Zstandard stand for, 256 MiB, the library would give in one piece."""
    (tmp_path / "bomb.zst").write_bytes(zstandard.compress(bytes(1 << 28)))
    # In a process of its own, whose peak no other test has a part in.
    program = (
        "import resource, sys; from pathlib import Path; from bort.corpus.compression import decompress\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak(); decompress(Path(sys.argv[1]), Path(sys.argv[2])); print(peak() - before)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "bomb.zst"), str(tmp_path / "plain")]
    grown = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert (tmp_path / "plain").stat().st_size == 1 << 28
    (tmp_path / "plain").unlink()
    assert grown < 160 << 10


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(BortError, match=rf"^{tmp_path}/absent.gz: cannot read: No such file"):
        decompress(tmp_path / "absent.gz", tmp_path / "plain")
