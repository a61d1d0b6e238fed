"""The .npz container: what NumPy writes we read, what we write NumPy reads, and nothing that a file claims is believed."""

from __future__ import annotations

import os
import pickle
import resource
import signal
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from bort import BortError
from bort.corpus.npz_archive import open_npz, write_npz_file


def blocks(seed, sizes=(3, 1, 5)):
    random = np.random.default_rng([17, seed])
    return [{"ids": random.integers(0, 99, (size, 4)).astype(np.int32), "zeros": np.zeros((size, 2), np.float32)} for size in sizes]


def test_numpy_reads_what_is_written(tmp_path):
    path = tmp_path / "new" / "a.npz"
    assert write_npz_file(path, blocks(0), {"note": np.array("straße")}, compressed=["zeros"]) == 9
    loaded = np.load(path)
    assert set(loaded) == {"ids", "zeros", "note"}
    assert loaded["ids"].dtype == np.int32
    assert np.array_equal(loaded["ids"], np.concatenate([block["ids"] for block in blocks(0)]))
    assert np.array_equal(loaded["zeros"], np.zeros((9, 2)))
    assert str(loaded["note"]) == "straße"
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.getinfo("zeros.npy").compress_type == zipfile.ZIP_DEFLATED
        assert archive.getinfo("ids.npy").compress_type == zipfile.ZIP_STORED
    assert [file.name for file in path.parent.iterdir()] == ["a.npz"]


def test_the_bytes_depend_on_the_rows_alone(tmp_path):
    whole = [{name: np.concatenate([block[name] for block in blocks(1)]) for name in ("ids", "zeros")}]
    write_npz_file(tmp_path / "a.npz", blocks(1), {})
    write_npz_file(tmp_path / "b.npz", whole, {})
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_a_failure_leaves_nothing(tmp_path):
    def failing():
        yield blocks(0)[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_npz_file(tmp_path / "a.npz", failing(), {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_writes_is_mapped(tmp_path, save):
    arrays = {"a": np.arange(12, dtype=np.int64).reshape(3, 4), "b": np.float32([0.5, -1]), "c": np.array(["x", "yz"])}
    save(tmp_path / "a.npz", **arrays)
    with open_npz(tmp_path / "a.npz") as file:
        mapped = {name: file.map(name) for name in arrays}
    for name, array in arrays.items():
        assert np.array_equal(mapped[name], array)
        assert mapped[name].dtype == array.dtype
        assert not mapped[name].flags.writeable


def test_the_fingerprint_is_of_the_contents(tmp_path):
    array = np.arange(100)
    np.savez(tmp_path / "a.npz", x=array)
    np.savez_compressed(tmp_path / "b.npz", x=array)
    np.savez(tmp_path / "c.npz", x=array + 1)
    np.savez(tmp_path / "d.npz", y=array)
    np.savez(tmp_path / "e.npz", x=array, y=array + 1)
    np.savez(tmp_path / "f.npz", y=array, x=array + 1)
    prints = []
    for name in "abcdef":
        with open_npz(tmp_path / f"{name}.npz") as file:
            prints.append(file.fingerprint)
    assert prints[0] == prints[1]
    assert len(set(prints)) == 5


MEMORY_PROGRAM = """
import resource, sys
from pathlib import Path
import numpy as np
from bort.corpus.npz_archive import write_npz_file
blocks = ({"a": np.full((256, 1024), number, np.int32)} for number in range(int(sys.argv[2])))
write_npz_file(Path(sys.argv[1]), blocks, {})
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_file(tmp_path):
    peaks = []
    for count in (4, 100):
        command = [sys.executable, "-c", MEMORY_PROGRAM, str(tmp_path / "a.npz"), str(count)]
        peaks.append(int(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    assert (tmp_path / "a.npz").stat().st_size > 100 * 2**20
    assert peaks[1] - peaks[0] < 16 * 1024, f"{peaks} KiB"


def npy(header, data=b""):
    text = header.encode() + b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def archive_of(path, contents, **options):
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)


HEADER = "{{'descr': '{}', 'fortran_order': {}, 'shape': {}, }}"
LYING = {
    "a shape beyond the data": (npy(HEADER.format("<i4", False, (10**12, 10**6)), b"1234"), "are not a int32 array"),
    "a negative shape": (npy(HEADER.format("<i4", False, (-1, 4))), "impossible shape"),
    "column order": (npy(HEADER.format("<i4", True, (2, 2)), b"0" * 16), "column by column"),
    "no header": (b"ids", "damaged one"),
    "code in the header": (npy("__import__('os').abort()"), "damaged one"),
    "another version": (b"\x93NUMPY\x03\x00\x00\x00\x00\x00", "version"),
}


@pytest.mark.parametrize("case", LYING)
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_lying_header_is_one_line_that_names_the_file(tmp_path, case, method):
    content, message = LYING[case]
    archive_of(tmp_path / "bad.npz", {"ids.npy": content}, compression=method)
    with pytest.raises(BortError, match=message) as caught, open_npz(tmp_path / "bad.npz"):
        pass
    assert str(caught.value).startswith(f"{tmp_path}/bad.npz")
    assert "\n" not in str(caught.value)


def test_every_way_of_cutting_or_flipping_is_a_bort_error_or_harmless(tmp_path):
    # Members of several of the portions that are read at once, or reading a header would read all.
    write_npz_file(tmp_path / "a.npz", blocks(0, sizes=(300, 1, 500)), {}, compressed=["zeros"])
    arrays = dict(np.load(tmp_path / "a.npz"))
    sound = (tmp_path / "a.npz").read_bytes()
    random = np.random.default_rng(5)
    damaged = [sound[: random.integers(len(sound))] for _ in range(150)]
    for number in range(400):
        flipped = bytearray(sound)
        # Half of them anywhere, which is mostly in an element, and half in what stands around the elements.
        place = random.integers(len(sound)) if number % 2 else random.choice([random.integers(170), -1 - random.integers(500)])
        flipped[place] ^= 1 << random.integers(8)
        damaged.append(bytes(flipped))
    messages = []
    for number, content in enumerate(damaged):
        path = tmp_path / f"{number}.npz"
        path.write_bytes(content)
        try:
            with open_npz(path) as file:
                for name in file.members:
                    found = file.map(name)
                    assert found.dtype == arrays[name].dtype
                    assert np.array_equal(found, arrays[name])
        except BortError as error:
            messages.append((path, str(error)))
    assert 250 < len(messages) < len(damaged)
    assert all(str(path) in message and "\n" not in message for path, message in messages)


def test_a_flipped_element_is_found_at_opening(tmp_path):
    array = np.arange(2**19, dtype=np.int64)
    np.savez(tmp_path / "a.npz", x=array)
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[content.index(array[-5:].tobytes())] ^= 1
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(BortError, match=r"a\.npz: .*damaged one: .*Bad CRC-32 for file .*x\.npy"), open_npz(tmp_path / "a.npz"):
        pass


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_file_keeps_one_descriptor_whatever_its_arrays(tmp_path, save):
    save(tmp_path / "a.npz", **{f"array_{number}": np.full(100, number) for number in range(30)})
    before = len(os.listdir("/proc/self/fd"))
    with open_npz(tmp_path / "a.npz") as file:
        views = file.views({name: file.place(name) for name in file.members})
    assert len(os.listdir("/proc/self/fd")) == before + 1
    assert all((views[f"array_{number}"] == number).all() for number in range(30))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_expand_without_bound_are_refused(tmp_path, method):
    archive_of(tmp_path / "a.npz", {"x.npy": npy(HEADER.format("|u1", False, (9,)), bytes(9))}, compression=method)
    with pytest.raises(BortError, match="the array 'x' is packed by another method"), open_npz(tmp_path / "a.npz"):
        pass


def test_more_than_deflate_can_hold_is_refused_before_it_is_unpacked(tmp_path):
    write_npz_file(tmp_path / "a.npz", [{"x": np.zeros(2**20, np.uint8)}], {}, compressed=["x"])
    with open_npz(tmp_path / "a.npz") as file:
        assert file.map("x").shape == (2**20,)
        size = file.members["x"].info.file_size
    content = (tmp_path / "a.npz").read_bytes().replace(struct.pack("<I", size), struct.pack("<I", 2**31))
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(BortError, match=r"the array 'x' has \d+ bytes, which cannot unpack"), open_npz(tmp_path / "a.npz"):
        pass


def test_a_full_disk_is_one_line(tmp_path):
    write_npz_file(tmp_path / "a.npz", [{"x": np.zeros(2**20, np.uint8)}], {}, compressed=["x"])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with open_npz(tmp_path / "a.npz") as file:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, limits[1]))
            with pytest.raises(BortError, match=r"^[^\n]*: cannot unpack [^\n]*a\.npz there: File too large; make room, or set TMPDIR"):
                file.map("x")
            with pytest.raises(BortError, match="set TMPDIR"):
                file.spool([np.zeros(2**20)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_missing_and_doubled_are_refused(tmp_path):
    with pytest.raises(BortError, match=r"nowhere\.npz: cannot be read"), open_npz(tmp_path / "nowhere.npz"):
        pass
    content = npy(HEADER.format("<i4", False, (1,)), b"1234")
    archive_of(tmp_path / "twice.npz", {"ids.npy": content})
    with zipfile.ZipFile(tmp_path / "twice.npz", "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("ids.npy", content)
    with pytest.raises(BortError, match="'ids' twice"), open_npz(tmp_path / "twice.npz"):
        pass


def test_rows_of_numbers_come_back_from_pickles(tmp_path):
    ragged = np.array([np.int32([1, 2]), np.array([3], ">u2"), [4, 5.5, np.float64(6)], np.array([7, 8], object), []], dtype=object)
    square = np.array([[1, 2], [3, 4]], dtype=object)
    np.savez_compressed(tmp_path / "a.npz", ragged=ragged, square=square)
    with open_npz(tmp_path / "a.npz") as file:
        assert file.members["ragged"].is_pickled
        assert [row.tolist() for row in file.unpickle("ragged")] == [[1, 2], [3], [4, 5.5, 6], [7, 8], []]
        assert [row.tolist() for row in file.unpickle("square")] == [[1, 2], [3, 4]]


class Harmful:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_calls_a_function_is_refused_before_the_call(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.array([Harmful(tmp_path / "harmed")], dtype=object))
    with pytest.raises(BortError, match=r"'posix\.mkdir', which is no part of an array"), open_npz(tmp_path / "a.npz") as file:
        file.unpickle("x")
    assert not (tmp_path / "harmed").exists()
    # The same file does harm where it is believed, so the test above can fail.
    np.load(tmp_path / "a.npz", allow_pickle=True)["x"]
    assert (tmp_path / "harmed").exists()


@pytest.mark.parametrize("content", [b"", b"junk", pickle.dumps([1, 2]), pickle.dumps(np.zeros(2)), pickle.dumps(np.zeros(3, object))])
def test_a_pickle_of_something_else_is_refused(tmp_path, content):
    archive_of(tmp_path / "a.npz", {"x.npy": npy(HEADER.format("|O", False, (2,)), content)})
    with pytest.raises(BortError, match=r"a\.npz: the array 'x'") as caught, open_npz(tmp_path / "a.npz") as file:
        file.unpickle("x")
    assert "\n" not in str(caught.value)
