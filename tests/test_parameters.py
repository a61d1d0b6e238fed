"""Parameter files against MXNet's and safetensors' own readers and writers, and against damage."""

from __future__ import annotations

import json
import os
import re
import resource
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors import SafetensorError
from safetensors import numpy as safetensors_peer

from bort.errors import BortError
from bort.parameters import map_safetensors, read_parameters, write_parameters

# In this order: the first restores the NumPy names that the second needs.
import bort.gluon  # noqa: F401  # isort: skip
import mxnet as mx  # isort: skip

MXNET_TYPES = {"float32": 0, "float64": 1, "float16": 2, "uint8": 3, "int32": 4, "int8": 5, "int64": 6, "bool": 7}
SAFETENSORS_TYPES = [*MXNET_TYPES, "int16", "uint16", "uint32", "uint64"]
VERSION_1, VERSION_2, VERSION_3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA

# The function-scoped tmp_path is overwritten by every example, which is what is wanted.
examples = settings(derandomize=True, deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def dicts_of_arrays(types: list[str], least_dimensions: int):
    """Dicts of arrays of any bits, NaN payloads included, some of them empty; names without the characters that files cannot hold."""
    arrays = st.sampled_from(types).flatmap(
        lambda name: hnp.arrays(np.dtype(name), hnp.array_shapes(min_dims=least_dimensions, max_dims=5, min_side=0, max_side=4))
    )
    names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
    return st.dictionaries(names.filter(lambda name: not name.startswith(("arg:", "aux:", "__metadata__"))), arrays, max_size=5)


def assert_same(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert actual.keys() == expected.keys()
    for name, array in expected.items():
        assert (actual[name].dtype, actual[name].shape) == (array.dtype, array.shape)
        assert actual[name].tobytes() == array.tobytes()


def from_mxnet(path: Path) -> dict[str, np.ndarray]:
    # MXNet gives a list where there are no names, and bfloat16 as raw halves, of a type of its own.
    loaded = mx.nd.load(str(path)) or {}
    wide = {name: mx.nd.amp_cast(array, dtype="float32") for name, array in loaded.items() if isinstance(array.dtype, np.dtype)}
    return {name: array.asnumpy() for name, array in {**loaded, **wide}.items()}


# Files made by hand.


def record(shape: tuple[int, ...], flag: int, elements: bytes, version: int = VERSION_2, storage: int = 0) -> bytes:
    head = struct.pack("<I", version) + (b"" if version == VERSION_1 else struct.pack("<i", storage))
    return head + struct.pack(f"<i{len(shape)}q3i", len(shape), *shape, 1, 0, flag) + elements


def params_file(records: list[bytes], names: list[bytes]) -> bytes:
    listed = b"".join(struct.pack("<Q", len(name)) + name for name in names)
    return struct.pack("<3Q", 0x112, 0, len(records)) + b"".join(records) + struct.pack("<Q", len(names)) + listed


def one(content: bytes, name: bytes = b"x") -> bytes:
    return params_file([content], [name])


def safetensors_file(header: object, data: bytes = b"", padding: int = 0) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += b" " * padding
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype: str, shape: list, begin: object, end: object) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


SIX = np.arange(6, dtype="<f4").reshape(2, 3)
SMALL_PARAMS = params_file([record((2, 3), 0, SIX.tobytes()), record((3,), 6, bytes(24)), record((0, 2), 3, b"")], [b"a", b"b.c", b"d"])
SMALL_SAFETENSORS = safetensors_file(
    {"__metadata__": {"k": "v"}, "a": entry("F32", [2, 3], 8, 32), "b": entry("I64", [1], 0, 8), "c": entry("U8", [0, 2], 32, 32)},
    bytes(8) + SIX.tobytes(),
)


# Round trips.


@given(arrays=dicts_of_arrays(list(MXNET_TYPES), least_dimensions=1))
@examples
def test_params_files_are_byte_for_byte_those_of_mxnet_and_read_alike(tmp_path, arrays):
    ours, theirs = tmp_path / "ours.params", tmp_path / "theirs.params"
    write_parameters(ours, arrays)
    mx.nd.save(str(theirs), {name: mx.nd.array(array, dtype=array.dtype) for name, array in arrays.items()})
    assert ours.read_bytes() == theirs.read_bytes()
    assert_same(from_mxnet(ours), arrays)
    assert_same(read_parameters(theirs), arrays)
    assert list(read_parameters(theirs)) == list(arrays)


@given(
    arrays=dicts_of_arrays(SAFETENSORS_TYPES, least_dimensions=0), metadata=st.dictionaries(st.text('aé"\n', max_size=3), st.text("ü\\"))
)
@examples
def test_safetensors_files_read_alike_here_and_in_the_safetensors_package(tmp_path, arrays, metadata):
    ours, theirs = tmp_path / "ours.safetensors", tmp_path / "theirs.safetensors"
    write_parameters(ours, arrays, metadata)
    # The package writes broken JSON for empty metadata.
    safetensors_peer.save_file(arrays, theirs, metadata or None)
    for path in (ours, theirs):
        assert_same(safetensors_peer.load_file(path), arrays)
        assert_same(read_parameters(path), arrays)
        views, read_metadata = map_safetensors(path)
        assert_same(views, arrays)
        assert read_metadata == metadata
    assert list(read_parameters(ours)) == list(arrays)


@pytest.mark.parametrize("suffix", [".params", ".safetensors"])
def test_any_memory_layout_and_byte_order_is_written_by_value(tmp_path, suffix):
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    layouts = {
        "transposed": base.T,
        "strided": base[::2, ::-3],
        "big_endian": base.astype(">f4"),
        "broadcast": np.broadcast_to(base[0], (3, 6)),
    }
    write_parameters(tmp_path / f"p{suffix}", layouts)
    read = read_parameters(tmp_path / f"p{suffix}")
    assert_same(read, {name: np.ascontiguousarray(array, "<f4") for name, array in layouts.items()})
    assert all(array.flags.writeable and array.flags.aligned and array.flags.owndata for array in read.values())


def test_written_safetensors_are_aligned_in_the_file(tmp_path):
    arrays = {f"{name}.{size}": np.ones(size, name) for size in (1, 3) for name in SAFETENSORS_TYPES}
    write_parameters(tmp_path / "p.safetensors", arrays)
    assert all(view.flags.aligned for view in map_safetensors(tmp_path / "p.safetensors")[0].values())


@pytest.mark.parametrize("name", ["bort_tiny.params", "bort_tiny_classifier.params", "roberta_tiny.params"])
def test_published_files_read_as_mxnet_reads_them_and_are_rewritten_unchanged(shared, tmp_path, name):
    path = shared / "golden" / name
    arrays = read_parameters(path)
    assert_same(arrays, from_mxnet(path))
    write_parameters(tmp_path / name, arrays)
    assert (tmp_path / name).read_bytes() == path.read_bytes()


def test_hugging_face_file_reads_as_safetensors_reads_it(shared):
    path = shared / "golden" / "hf_roberta_tiny" / "model.safetensors"
    assert_same(read_parameters(path), safetensors_peer.load_file(path))
    assert map_safetensors(path)[1] == {"format": "pt"}


# What MXNet's format holds besides what its present writer makes.


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(record((2, 3), 0, SIX.tobytes(), VERSION_1), id="version 1"),
        pytest.param(struct.pack("<3I3i", 2, 2, 3, 1, 0, 0) + SIX.tobytes(), id="before version 1"),
        pytest.param(record((2, 3), 0, SIX.tobytes()).replace(struct.pack("<2i", 1, 0), struct.pack("<2i", 2, 5)), id="saved on a GPU"),
        pytest.param(record((0, 3), 1, b"", VERSION_1), id="version 1, empty"),
    ],
)
def test_older_arrays_read_as_mxnet_reads_them(tmp_path, content):
    path = tmp_path / "old.params"
    path.write_bytes(params_file([content, record((1,), 3, b"\x07")], [b"old", b"next"]))
    assert_same(read_parameters(path), from_mxnet(path))


@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)])
def test_arrays_of_numpy_semantics_read_as_mxnet_reads_them(tmp_path, shape):
    path = tmp_path / "numpy.params"
    with mx.util.np_shape(True):
        mx.nd.save(str(path), {"x": mx.nd.array(np.full(shape, 2.5), dtype="float32")})
        expected = from_mxnet(path)
    assert struct.pack("<I", VERSION_3) in path.read_bytes()
    assert_same(read_parameters(path), expected)


def test_prefixes_of_module_checkpoints_are_dropped_once(tmp_path):
    path = tmp_path / "module.params"
    mx.nd.save(str(path), {name: mx.nd.ones((1,)) for name in ("arg:weight", "aux:mean", "plain", "arg:aux:x")})
    assert list(read_parameters(path)) == ["weight", "mean", "plain", "aux:x"]


def test_names_that_clash_without_their_prefix_are_refused(tmp_path):
    path = tmp_path / "module.params"
    mx.nd.save(str(path), {name: mx.nd.ones((1,)) for name in ("arg:mean", "aux:mean")})
    with pytest.raises(BortError, match=r"module\.params, offset \d+: a second array is called 'mean'"):
        read_parameters(path)


def test_bfloat16_is_widened_exactly_and_cannot_be_mapped(tmp_path):
    values = np.array([1.0, -2.5, 2.0**-126, 3.3895314e38, np.inf, -0.0], np.float32)
    halves = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    in_mxnet, in_safetensors = tmp_path / "p.params", tmp_path / "p.safetensors"
    in_mxnet.write_bytes(params_file([record((2, 3), 12, halves)], [b"x"]))
    in_safetensors.write_bytes(safetensors_file({"x": entry("BF16", [2, 3], 0, 12)}, halves))
    for arrays in (read_parameters(in_mxnet), read_parameters(in_safetensors), from_mxnet(in_mxnet)):
        assert_same(arrays, {"x": values.reshape(2, 3)})
    with pytest.raises(BortError, match="tensor 'x' is bfloat16"):
        map_safetensors(in_safetensors)
    in_safetensors.write_bytes(safetensors_file({"x": entry("BF16", [], 0, 2), "y": entry("BF16", [0, 3], 2, 2)}, halves[:2]))
    arrays = read_parameters(in_safetensors)
    assert_same(arrays, {"x": np.array(1.0, np.float32), "y": np.empty((0, 3), np.float32)})
    assert all(isinstance(array, np.ndarray) for array in arrays.values())


# Telling the formats apart.


def test_content_decides_and_not_the_suffix(tmp_path):
    (tmp_path / "p.safetensors").write_bytes(SMALL_PARAMS)
    assert list(read_parameters(tmp_path / "p.safetensors")) == ["a", "b.c", "d"]


def test_safetensors_whose_header_length_is_the_magic_number_of_mxnet(tmp_path):
    header = {"x": entry("F32", [2, 3], 0, 24)}
    path = tmp_path / "p.safetensors"
    path.write_bytes(safetensors_file(header, SIX.tobytes(), padding=0x112 - len(json.dumps(header))))
    assert path.read_bytes()[:8] == SMALL_PARAMS[:8]
    assert_same(safetensors_peer.load_file(path), {"x": SIX})
    assert_same(read_parameters(path), {"x": SIX})


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\n", b"PK\x03\x04" + bytes(60)])
def test_other_files_are_refused_showing_how_they_begin(tmp_path, content):
    (tmp_path / "bort.params").write_bytes(content)
    with pytest.raises(BortError, match=r"bort\.params, offset 0: neither .* begins with b'") as caught:
        read_parameters(tmp_path / "bort.params")
    assert repr(content[:9]) in str(caught.value)


def test_what_is_not_a_readable_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "absent", tmp_path, tmp_path / "pipe"):
        with pytest.raises(BortError, match="no such file"):
            read_parameters(path)


# Mapping.


def test_mapping_reads_the_header_only(tmp_path):
    path = tmp_path / "shard.safetensors"
    size = 64 * 2**30
    path.write_bytes(safetensors_file({"__metadata__": {"seed": "7"}, "ids": entry("U16", [size // 2], 0, size)}))
    os.truncate(path, path.stat().st_size + size)
    before = resident_bytes()
    views, metadata = map_safetensors(path)
    assert (views["ids"].shape, int(views["ids"][-1]), metadata) == ((size // 2,), 0, {"seed": "7"})
    assert not views["ids"].flags.writeable
    assert resident_bytes() - before < 64 * 2**20


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


# Refusing to write.


@pytest.mark.parametrize(
    ("file", "arrays", "metadata", "message"),
    [
        ("p.npz", {"x": SIX}, None, "written as .params or .safetensors, not .npz"),
        ("p", {"x": SIX}, None, "not without a suffix"),
        ("p.params", {"x": SIX}, {"k": "v"}, "cannot hold metadata"),
        ("p.params", {"x": SIX, "y": np.ones(2, np.uint16)}, None, "'y', which is uint16"),
        ("p.params", {"x": np.array(["text"], object)}, None, "'x', which is object"),
        ("p.params", {"x": np.float32(1.0)}, None, "cannot read a scalar back"),
        ("p.params", {"a\0b": SIX}, None, "holds a zero byte"),
        ("p.params", {"a\ud800b": SIX}, None, "cannot be written as UTF-8"),
        ("p.safetensors", {"x": np.ones(2, np.complex64)}, None, "'x', which is complex64"),
        ("p.safetensors", {"x": np.array(["text"], object)}, None, "'x', which is object"),
        ("p.safetensors", {"__metadata__": SIX}, None, "keeps the name __metadata__"),
        ("p.safetensors", {"a\ud800b": SIX}, None, "cannot be written as UTF-8"),
        ("p.safetensors", {"x": SIX}, {"step": 3}, "metadata is text, got 3"),
    ],
)
def test_what_a_format_cannot_hold_is_refused_and_the_file_stays(tmp_path, file, arrays, metadata, message):
    path = tmp_path / file
    path.write_bytes(b"as it was")
    with pytest.raises(BortError) as caught:
        write_parameters(path, arrays, metadata)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == b"as it was"


@pytest.mark.parametrize("file", ["p.params", "p.safetensors"])
def test_a_disk_that_fills_up_leaves_the_file_as_it_was(tmp_path, file):
    path = tmp_path / file
    write_parameters(path, {"x": SIX})
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_parameters(path, {"x": SIX, "y": np.zeros(10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


# Damage. Whatever is in a file, reading ends in arrays or in a BortError, and allocates little.


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
