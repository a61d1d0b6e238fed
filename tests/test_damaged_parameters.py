"""Damaged parameter files: whatever is in a file, reading ends in arrays or in a ``BortError``, and allocates little."""

from __future__ import annotations

import os
import re
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors import numpy as safetensors_peer

from bort.errors import BortError
from bort.parameters import map_safetensors, read_parameters

from .parameter_files import (
    SIX,
    SMALL_PARAMS,
    SMALL_SAFETENSORS,
    VERSION_2,
    VERSION_3,
    assert_same,
    entry,
    examples,
    from_mxnet,
    one,
    params_file,
    record,
    safetensors_file,
)


def peak_allocation(action: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def read_or_refuse(path: Path, content: bytes) -> dict[str, np.ndarray] | None:
    """Arrays, or None if ``content`` was refused as it should be; fails on any other end, and on allocations out of proportion."""
    path.write_bytes(content)
    ends: list[dict[str, np.ndarray] | BortError] = []

    def attempt() -> None:
        try:
            ends.append(read_parameters(path))
        except BortError as error:
            ends.append(error)

    # The constant is for Python's own file buffers and error; the factor, for what a few bytes of JSON are as Python objects.
    assert peak_allocation(attempt) < 500_000 + 30 * len(content)
    (end,) = ends
    if isinstance(end, dict):
        return end
    message = re.fullmatch(rf"{re.escape(str(path))}, offset (\d+): .{{1,1000}}", str(end))
    assert 0 <= int(message[1]) <= len(content)
    return None


def test_the_meter_of_allocations_sees_numpy():
    assert peak_allocation(lambda: np.empty(10_000_000, np.uint8)) >= 10_000_000


@pytest.mark.parametrize("content", [SMALL_PARAMS, SMALL_SAFETENSORS], ids=["params", "safetensors"])
def test_every_truncation_and_every_extension_is_refused(tmp_path, content):
    assert read_or_refuse(tmp_path / "p", content) is not None
    for end in range(len(content)):
        assert read_or_refuse(tmp_path / "p", content[:end]) is None, end
    for extra in (b"\0", bytes(8), content):
        assert read_or_refuse(tmp_path / "p", content + extra) is None


@pytest.mark.parametrize(
    "content",
    [
        params_file([struct.pack("<2I3i", 1, 0, 1, 0, 3)] * 10_000, [b"%05d" % number for number in range(10_000)]),
        safetensors_file({str(number): entry("U8", [0], 0, 0) for number in range(10_000)}),
        safetensors_file(b'{"x":[' + b"{}," * 100_000 + b"{}]}"),
    ],
    ids=["params", "safetensors", "json"],
)
def test_a_multitude_of_empty_things_stays_within_the_bound(tmp_path, content):
    arrays = read_or_refuse(tmp_path / "p", content)
    assert arrays is None or len(arrays) == 10_000


def agrees_with_the_peer(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """What is accepted here must be valid to the format's own reader too, and mean the same."""
    content = path.read_bytes()
    if content[8:9] == b"{":
        if b'"BF16"' not in content:
            assert_same(arrays, safetensors_peer.load_file(path))
    # MXNet reads version 3 only in a mode in which it refuses the other versions, and cannot name lengths over 31 bits.
    elif struct.pack("<I", VERSION_3) not in content and all(max(array.shape) < 2**31 for array in arrays.values()):
        assert_same(arrays, {re.sub("^(arg|aux):", "", name): array for name, array in from_mxnet(path).items()})


@pytest.mark.parametrize(("content", "element_bytes"), [(SMALL_PARAMS, 48), (SMALL_SAFETENSORS, 32)], ids=["params", "safetensors"])
def test_every_flipped_bit_is_refused_or_read_as_the_formats_own_reader_reads_it(tmp_path, content, element_bytes):
    accepted = 0
    for bit in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        arrays = read_or_refuse(tmp_path / "p", bytes(damaged))
        if arrays is not None:
            accepted += 1
            agrees_with_the_peer(tmp_path / "p", arrays)
    assert accepted >= 8 * element_bytes  # nobody can tell these from other elements


@given(data=st.data(), content=st.sampled_from([SMALL_PARAMS, SMALL_SAFETENSORS]))
@settings(examples, max_examples=400)
def test_spliced_files_are_refused_or_read_as_the_formats_own_reader_reads_them(tmp_path, data, content):
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(content)))
        end = data.draw(st.integers(start, min(start + 12, len(content))))
        number = st.sampled_from([0, 1, 2, 3, 12, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1])
        packed = st.tuples(number, st.sampled_from([4, 8])).map(lambda pair: struct.pack("<Q", pair[0])[: pair[1]])
        content = content[:start] + data.draw(st.binary(max_size=12) | packed | number.map(lambda n: str(n).encode())) + content[end:]
    arrays = read_or_refuse(tmp_path / "p", content)
    if arrays is not None:
        agrees_with_the_peer(tmp_path / "p", arrays)


HUGE = 2**40
BODY = SIX.tobytes()
SOUND = record((2, 3), 0, BODY)
WRONG_PARAMS = {
    "truncated shape": (one(SOUND)[:44], 36, "array 1 of 1 needs 16 more bytes, 8 are left"),
    "more arrays than bytes": (struct.pack("<3Q", 0x112, 0, HUGE), 16, f"{HUGE} arrays do not fit into the 0 bytes left"),
    "reserved word": (struct.pack("<3Q", 0x112, 1, 0) + bytes(8), 0, "the file header is 0x112, 0x1"),
    "huge array": (one(record((HUGE,), 0, BODY)), 56, f"array 1 of 1 needs {4 * HUGE} more bytes, 41 are left"),
    "overflowing product": (one(record((2**62, 2**62), 0, BODY)), 64, "array 1 of 1 has an impossible shape"),
    "overflow behind a zero": (one(record((0, 2**62), 0, b"")), 64, "impossible shape, (0, 4611686018427387904)"),
    "negative dimension": (one(record((-2, -3), 0, BODY)), 64, "impossible shape, (-2, -3)"),
    "dimensions": (one(record((1,) * 33, 0, b"\0\0\0\0")), 24, "has 33 dimensions"),
    "negative number of dimensions": (one(struct.pack("<Iii", VERSION_3, 0, -1)), 24, "has -1 dimensions"),
    "uninitialised": (one(struct.pack("<Iii", VERSION_2, 0, 0) + bytes(8)), 24, "has no shape: it was never initialised"),
    "row sparse": (one(record((2, 3), 0, BODY, storage=1)), 28, "is sparse, which is not supported"),
    "storage type": (one(record((2, 3), 0, BODY, storage=9)), 28, "unknown storage type 9"),
    "version": (one(struct.pack("<I", 0xF993FACB) + bytes(20)), 24, "unknown version 0xf993facb"),
    "element type": (one(record((2, 3), 8, BODY)), 60, "unknown element type 8"),
    "no names": (params_file([SOUND], []), 88, "1 arrays, but 0 names; save a dict"),
    "too many names": (params_file([SOUND], [b"x", b"y"]), 88, "1 arrays, but 2 names"),
    "long name": (one(SOUND)[:-9] + struct.pack("<Q", HUGE) + b"x", 96, f"{HUGE} bytes of a name do not fit"),
    "name not UTF-8": (one(SOUND, b"ab\xff"), 106, "a name is not UTF-8"),
    "name with zero": (one(SOUND, b"a\0b"), 96, "holds a zero byte"),
    "repeated name": (params_file([record((1,), 3, b"1"), record((1,), 3, b"2")], [b"x", b"x"]), 107, "a second array is called 'x'"),
    "trailing bytes": (one(SOUND) + b"more", 105, "4 bytes follow the last name"),
}
WRONG_SAFETENSORS = {
    "long header": (struct.pack("<Q", HUGE) + b"{}", 0, f"{HUGE} bytes of header do not fit into the 2 bytes left"),
    "not UTF-8": (safetensors_file(b'{"\xff": 1}'), 10, "the header is not UTF-8"),
    "not JSON": (safetensors_file(b'{"x": }'), 8, "the header is not JSON"),
    "two objects": (safetensors_file(b"{}{}"), 8, "the header is not JSON"),
    "deep nesting": (safetensors_file(b'{"x":' + b"[" * 100_000), 8, "the header is not JSON"),
    "endless number": (safetensors_file(b'{"x":' + b"9" * 100_000 + b"}"), 8, ""),
    "repeated name": (safetensors_file(b'{"x": {"dtype":"U8","shape":[0],"data_offsets":[0,0]}, "x": 1}'), 8, "a key is repeated"),
    "half a surrogate pair": (safetensors_file(b'{"\\ud800": {"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'), 8, "not JSON"),
    "metadata of numbers": (safetensors_file({"__metadata__": {"k": 1}}), 8, "__metadata__ is not an object of texts"),
    "metadata of null": (safetensors_file({"__metadata__": None}), 8, "__metadata__ is not an object of texts"),
    "entry of null": (safetensors_file({"x": None}), 8, "'x' lacks a dtype, a shape or a pair of data_offsets"),
    "three offsets": (safetensors_file({"x": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1, 1]}}, b"1"), 8, "'x' lacks a dtype"),
    "unknown dtype": (safetensors_file({"x": entry("F8_E4M3", [1], 0, 1)}, b"1"), 8, "the dtype 'F8_E4M3', which NumPy lacks"),
    "true for a size": (safetensors_file({"x": entry("U8", [True], 0, 1)}, b"1"), 8, "are not sizes"),
    "negative size": (safetensors_file({"x": entry("U8", [-1, -1], 0, 1)}, b"1"), 8, "are not sizes"),
    "fractional offset": (safetensors_file({"x": entry("U8", [1], 0, 1.0)}, b"1"), 8, "are not sizes"),
    "astronomic size": (safetensors_file({"x": entry("U8", [10**4000] * 32, 0, 1)}, b"1"), 8, "are not sizes"),
    "overflowing product": (safetensors_file({"x": entry("F32", [2**62, 2**62], 0, 8)}, bytes(8)), 8, "impossible shape"),
    "overflow behind a zero": (safetensors_file({"x": entry("F32", [0, 2**62], 0, 0)}), 8, "impossible shape"),
    "dimensions": (safetensors_file({"x": entry("U8", [1] * 33, 0, 1)}, b"1"), 8, "impossible shape"),
    "shape and offsets": (safetensors_file({"x": entry("F32", [3], 0, 8)}, bytes(8)), 8, "does not fill its data_offsets 0–8"),
    "endless name": (safetensors_file({"x\n" * 100_000: entry("U8", [1], 0, 2)}, b"12"), 8, "x\\n…' has a shape that does not fill"),
    "backward offsets": (safetensors_file({"x": entry("U8", [1], 1, 0)}, b"1"), 8, "does not fill its data_offsets 1–0"),
    "beyond the end": (safetensors_file({"x": entry("U8", [HUGE], 0, HUGE)}, b"1"), 93, f"the tensors end at {92 + HUGE}, the file at 93"),
    "overlap": (safetensors_file({"x": entry("U8", [2], 0, 2), "y": entry("U8", [2], 1, 3)}, b"123"), 129, "'y' overlaps the tensor"),
    "gap": (safetensors_file({"x": entry("U8", [1], 0, 1), "y": entry("U8", [1], 2, 3)}, b"123"), 129, "'y' leaves a gap"),
    "trailing bytes": (safetensors_file({"x": entry("U8", [1], 0, 1)}, b"123"), 69, "the tensors end at 69, the file at 71"),
}


@pytest.mark.parametrize(
    ("reader", "content", "offset", "message"),
    [
        pytest.param(reader, *case, id=f"{reader.__name__}-{name}")
        for reader, cases in [(read_parameters, WRONG_PARAMS), (read_parameters, WRONG_SAFETENSORS), (map_safetensors, WRONG_SAFETENSORS)]
        for name, case in cases.items()
    ],
)
def test_a_wrong_file_is_refused_saying_where_and_why(tmp_path, reader, content, offset, message):
    assert read_or_refuse(tmp_path / "file", content) is None
    with pytest.raises(BortError) as caught:
        reader(tmp_path / "file")
    assert f"/file, offset {offset}: " in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize("text", [b"[]", b" {}", b"7"])
def test_a_safetensors_header_begins_with_a_brace(tmp_path, text):
    path = tmp_path / "p.safetensors"
    path.write_bytes(safetensors_file(text))
    with pytest.raises(BortError, match="offset 8: the header is not a JSON object"):
        map_safetensors(path)


def test_a_file_that_shrinks_while_it_is_read_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "p.params"
    path.write_bytes(SMALL_PARAMS[:-1])
    monkeypatch.setattr("bort.parameters.os.fstat", lambda descriptor: SimpleNamespace(st_size=len(SMALL_PARAMS)))
    with pytest.raises(BortError, match=rf"offset {len(SMALL_PARAMS) - 1}: the file shrank while a name was read"):
        read_parameters(path)


def test_a_header_over_the_formats_limit_is_refused_unread(tmp_path):
    path = tmp_path / "p.safetensors"
    path.write_bytes(struct.pack("<Q", 200_000_000) + b"{")
    os.truncate(path, 300_000_000)

    def attempt() -> None:
        with pytest.raises(BortError, match=r"offset 0: a header of 200000000 bytes, more than the 100000000"):
            read_parameters(path)

    assert peak_allocation(attempt) < 1_000_000


def test_the_safetensors_package_refuses_the_same_headers(tmp_path):
    """The cases above are faults of the files and not whims of ours, but for what only NumPy lacks and for an absent metadata."""
    ours_alone = {"metadata of null", "unknown dtype", "dimensions", "overflow behind a zero"}
    for case, (content, _, _) in WRONG_SAFETENSORS.items():
        if case not in ours_alone:
            (tmp_path / "p.safetensors").write_bytes(content)
            with pytest.raises(SafetensorError):
                safetensors_peer.load_file(tmp_path / "p.safetensors")
