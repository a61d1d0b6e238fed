"""Parameter files against MXNet's and safetensors' own readers and writers."""

from __future__ import annotations

import json
import os
import resource
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import numpy as safetensors_peer

from bort.errors import BortError
from bort.parameters import StreamedArray, map_safetensors, read_parameters, write_parameters, write_safetensors

from .parameter_files import (
    MXNET_TYPES,
    SAFETENSORS_TYPES,
    SIX,
    SMALL_PARAMS,
    VERSION_1,
    VERSION_3,
    assert_same,
    dicts_of_arrays,
    entry,
    examples,
    from_mxnet,
    params_file,
    record,
    safetensors_file,
)

# In this order: the first restores the NumPy names that the second needs.
import bort.gluon  # noqa: F401  # isort: skip
import mxnet as mx  # isort: skip

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


def test_a_streamed_array_gives_the_bytes_of_the_whole(tmp_path):
    whole = {"ids": np.arange(1000, dtype=np.uint16), "ends": np.arange(50).reshape(5, 10), "none": np.empty(0, np.int64)}
    portions = {
        "ids": StreamedArray(np.dtype(np.uint16), (1000,), (whole["ids"][first : first + 300] for first in range(0, 1000, 300))),
        "ends": StreamedArray(np.dtype(np.int64), (5, 10), iter(whole["ends"])),
        "none": StreamedArray(np.dtype(np.int64), (0,), []),
    }
    write_safetensors(tmp_path / "whole.safetensors", whole, {"a": "b"})
    write_safetensors(tmp_path / "streamed.safetensors", portions, {"a": "b"})
    assert (tmp_path / "streamed.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


@pytest.mark.parametrize("portions", [[np.arange(3)], [np.arange(5)], [np.arange(4, dtype=np.int32)] * 2])
def test_a_streamed_array_that_breaks_its_promise_leaves_nothing(tmp_path, portions):
    with pytest.raises(ValueError, match=r"^x: "):
        write_safetensors(tmp_path / "a.safetensors", {"x": StreamedArray(np.dtype(np.int64), (4,), portions)})
    assert list(tmp_path.iterdir()) == []
