"""Reading text: what a document is, where files are found, and what odd bytes do."""

from __future__ import annotations

import gzip
import os

import pytest
import zstandard

from bort import BortError
from bort.corpus.documents import ReadingReport, counted, find_text_files, read_documents


def read(*files):
    report = ReadingReport()
    return list(read_documents(files, report)), report


def test_blank_lines_and_file_ends_separate_documents(tmp_path):
    (tmp_path / "a.txt").write_text("\n\nOne.\n  Two.  \n\n \t\nThree.\n", encoding="utf-8")
    (tmp_path / "b.txt").write_text("Four.\r\nFünf.", encoding="utf-8")
    documents, report = read(tmp_path / "a.txt", tmp_path / "b.txt")
    assert documents == [["One.", "Two."], ["Three."], ["Four.", "Fünf."]]
    assert (report.documents, report.sentences, report.undecodable_lines) == (3, 5, 0)


def test_a_byte_that_is_not_utf8_costs_one_character_and_is_counted(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"caf\xe9 au lait\nnul\x00byte\n")
    documents, report = read(tmp_path / "a.txt")
    assert documents == [["caf\ufffd au lait", "nul\x00byte"]]
    assert report.undecodable_lines == 1


def test_files_patterns_folders_and_commas(tmp_path):
    for name in ("b.txt", "a.txt", "deep/c.txt", "note.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x\n", encoding="utf-8")
    names = [path.name for path in find_text_files([str(tmp_path)])]
    assert names == ["a.txt", "b.txt", "c.txt"]
    assert [path.name for path in find_text_files([f"{tmp_path}/b.txt,{tmp_path}/note.md", f"{tmp_path}/*.txt"])] == [
        "b.txt",
        "note.md",
        "a.txt",
    ]


def test_folders_also_give_compressed_files_and_other_suffixes(tmp_path):
    for name in ("a.txt", "b.txt.gz", "c.txt.zst", "d.jsonl", "e.jsonl.gz", "f.gz"):
        (tmp_path / name).touch()
    assert [path.name for path in find_text_files([str(tmp_path)])] == ["a.txt", "b.txt.gz", "c.txt.zst"]
    assert [path.name for path in find_text_files([str(tmp_path)], ".jsonl")] == ["d.jsonl", "e.jsonl.gz"]


def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for item in (str(tmp_path / "pipe"), "/dev/null"):
        with pytest.raises(BortError, match=rf"^{item}: not a regular file"):
            find_text_files([item])


def test_things_are_counted_in_words():
    assert [counted(number, "file") for number in (0, 1, 2)] == ["0 files", "1 file", "2 files"]


def test_the_first_of_odd_lines_is_that_of_what_was_read_before():
    report = ReadingReport(first={"long_lines": "a"})
    report.add(ReadingReport(first={"long_lines": "b", "skipped_lines": "c"}))
    assert report.first == {"long_lines": "a", "skipped_lines": "c"}


def test_compressed_files_are_read_like_plain_ones(tmp_path):
    text = b"One.\n\nTwo.\nThree.\n"
    (tmp_path / "a.txt").write_bytes(text)
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(text))
    (tmp_path / "a.txt.zst").write_bytes(zstandard.compress(text))
    for name in ("a.txt", "a.txt.gz", "a.txt.zst"):
        assert read(tmp_path / name)[0] == [["One."], ["Two.", "Three."]]


def test_reports_add_up():
    report = ReadingReport(documents=1, sentences=2, tokens=3, undecodable_lines=4)
    report.add(ReadingReport(documents=10, text_bytes=20, long_lines=30))
    assert report == ReadingReport(documents=11, sentences=2, tokens=3, undecodable_lines=4, text_bytes=20, long_lines=30)


@pytest.mark.parametrize("missing", ["nowhere.txt", "no*thing.txt", ","])
def test_input_that_matches_nothing_is_an_error(tmp_path, missing):
    with pytest.raises(BortError, match=r"no such text file|no input file"):
        find_text_files([f"{tmp_path}/{missing}" if missing != "," else ","])
