"""Pickles of rows: the honest ones are read, and of the others none is more than an error, whatever it makes NumPy's constructors do."""

from __future__ import annotations

import io
import pickle
import struct
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from bort.corpus.npz_pickle import read_pickled_rows


class Call:
    """Pickled as a call of ``function``."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.reduced


def ragged():
    random = np.random.default_rng(3)
    rows = np.empty(20, dtype=object)
    for number in range(20):
        row = random.integers(0, 100, random.integers(1, 9)).astype(np.int32)
        rows[number] = row.tolist() if number % 3 == 0 else row
    return rows


def pickled(value, protocol=3):
    return pickle.dumps(value, protocol=protocol)


def read(content, shape):
    return read_pickled_rows(io.BytesIO(content), shape)


@pytest.mark.parametrize("protocol", [3, 4])
def test_honest_rows_are_read_as_numpy_reads_them(protocol):
    rows = read(pickled(ragged(), protocol), (20,))
    assert [row.tolist() for row in rows] == [np.asarray(row).tolist() for row in ragged()]
    assert {row.dtype for row in rows} == {np.dtype(np.int32), np.dtype(np.int64)}


@pytest.mark.parametrize("code", ["<i8", ">i4", "|u1", "<f2", ">f8"])
def test_every_type_of_numbers_is_read(code):
    rows = np.empty(1, dtype=object)
    rows[0] = np.array([1, 2, 3], code)
    (row,) = read(pickled(rows), (1,))
    assert row.tolist() == [1, 2, 3]
    assert row.dtype == np.dtype(code)


RECONSTRUCT = np.zeros(0).__reduce__()[0]
POINTER = struct.pack("<Q", 0x4141414141)
OBJECT = np.dtype(object)
HARMFUL = {
    "a buffer of pointers": Call(np.ndarray, (1,), OBJECT, POINTER),
    "bytes for objects": Call(RECONSTRUCT, np.ndarray, (0,), b"b", state=(1, (1,), OBJECT, False, POINTER)),
    "a list for numbers": np.array([Call(RECONSTRUCT, np.ndarray, (0,), b"b", state=(1, (1,), np.dtype("i4"), False, [1]))], object),
    "too few bytes": np.array([Call(RECONSTRUCT, np.ndarray, (0,), b"b", state=(1, (10**12,), np.dtype("i4"), False, b"1234"))], object),
    "too few elements": Call(RECONSTRUCT, np.ndarray, (0,), b"b", state=(1, (10**12,), OBJECT, False, [1])),
    "a greater array": Call(RECONSTRUCT, np.ndarray, (10**9,), b"b"),
    "a pointer as number": np.array([[Call(np.core.multiarray.scalar, OBJECT, POINTER)]], object),
    "a call of what is no array": np.array([[Call(eval, "1")]], object),
    "dates": np.array([np.array(["2020"], "M8[D]")], object),
    "texts": np.array([np.array(["x"])], object),
    "booleans": np.array([[True]], object),
    "itself": [],
    "dictionaries": np.array([{}], object),
}
HARMFUL["itself"].append(HARMFUL["itself"])


@pytest.mark.parametrize("case", HARMFUL)
@pytest.mark.parametrize("protocol", [3, 4])
def test_a_pickle_of_anything_else_is_an_error(case, protocol):
    for shape in ((1,), (1, 1), (10**12,)):
        with pytest.raises((ValueError, TypeError)):
            read(pickled(HARMFUL[case], protocol), shape)


def test_the_pointer_is_harmful_where_it_is_believed():
    """So the first case above can fail."""
    program = f"import pickle; print(pickle.loads({pickled(HARMFUL['a buffer of pointers'])!r}))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode < 0


def test_flipped_pickles_are_errors_or_rows_of_numbers():
    outcomes = {"read": 0, "refused": 0}
    random = np.random.default_rng(11)
    for number in range(600):
        content = bytearray(pickled(ragged(), 3 + number % 2))
        for _ in range(random.integers(1, 5)):
            content[random.integers(len(content))] = random.integers(256)
        try:
            rows = read(bytes(content), (20,))
        except (ValueError, LookupError, TypeError, OverflowError):
            outcomes["refused"] += 1
        else:
            outcomes["read"] += 1
            assert len(rows) == 20
            assert all(row.ndim == 1 and row.dtype.kind in "iufO" for row in rows)
            assert sum(len(row) for row in rows) < 1000
    assert min(outcomes.values()) > 50, outcomes


@pytest.mark.parametrize(
    "content", [b"\x80\x04\x8e" + struct.pack("<Q", 2**40), b"\x80\x03r\xff\xff\xff\xff.", b"\x80\x03Nr\xff\xff\xff\xff.", b"", b"("]
)
def test_what_a_pickle_claims_is_not_allocated(content):
    tracemalloc.start()
    with pytest.raises((ValueError, LookupError)):
        read(content, (1,))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20
