"""Growing arrays in one file: what was added comes back, and a file that is not whole is none."""

from __future__ import annotations

import numpy as np
import pytest

from bort.corpus.spill import read_spill, write_spill

DTYPES = {"small": np.dtype(np.uint16), "wide": np.dtype(np.int64)}


def write(path):
    with write_spill(path, DTYPES) as writer:
        for number in range(5):
            writer.add("small", np.arange(number * 10, dtype=np.uint16))
            writer.add("wide", np.array([number, -number]))
        writer.facts = {"counts": dict(writer.counts)}


def test_each_array_comes_back_in_order(tmp_path):
    write(tmp_path / "spill")
    spill = read_spill(tmp_path / "spill")
    assert spill.facts == {"counts": {"small": 100, "wide": 10}}
    assert (spill.count("small"), spill.count("wide")) == (100, 10)
    small = np.concatenate(list(spill.elements("small")))
    assert small.dtype == np.uint16
    assert small.tolist() == [value for number in range(5) for value in range(number * 10)]
    assert np.concatenate(list(spill.elements("wide"))).tolist() == [0, 0, 1, -1, 2, -2, 3, -3, 4, -4]
    assert [path.name for path in tmp_path.iterdir()] == ["spill"]


def test_the_digest_is_of_the_contents(tmp_path):
    write(tmp_path / "one")
    write(tmp_path / "two")
    with write_spill(tmp_path / "three", DTYPES) as writer:
        writer.add("small", np.array([1], dtype=np.uint16))
    digests = [read_spill(tmp_path / name).digest for name in ("one", "two", "three")]
    assert digests[0] == digests[1] != digests[2]


def test_elements_that_are_not_those_written_are_noticed(tmp_path):
    write(tmp_path / "spill")
    assert read_spill(tmp_path / "spill").is_as_written()
    whole = (tmp_path / "spill").read_bytes()
    (tmp_path / "spill").write_bytes(bytes(64) + whole[64:])
    assert not read_spill(tmp_path / "spill").is_as_written()


def test_a_large_portion_is_read_in_bounded_parts(tmp_path):
    with write_spill(tmp_path / "spill", DTYPES) as writer:
        writer.add("wide", np.arange(300_000))
    parts = list(read_spill(tmp_path / "spill").elements("wide"))
    assert max(part.nbytes for part in parts) <= 1 << 20
    assert np.concatenate(parts).tolist() == list(range(300_000))


def test_a_file_cut_anywhere_is_none(tmp_path):
    write(tmp_path / "spill")
    whole = (tmp_path / "spill").read_bytes()
    for size in range(len(whole)):
        (tmp_path / "spill").write_bytes(whole[:size])
        assert read_spill(tmp_path / "spill") is None
    (tmp_path / "spill").write_bytes(bytes(len(whole)))
    assert read_spill(tmp_path / "spill") is None
    assert read_spill(tmp_path / "absent") is None


def test_nothing_appears_if_the_writer_fails(tmp_path):
    def fail():
        with write_spill(tmp_path / "spill", DTYPES) as writer:
            writer.add("wide", np.arange(10))
            raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        fail()
    assert list(tmp_path.iterdir()) == []
