"""``bort vocab`` as a user runs it: training, conversion, and what bad input gets."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from bort import Tokenizer
from bort.cli import main

TEXT = "The cat sat on the mat, and the other cat did not.\nIt said </s> and <mask> twice.\n\nLäuft der Hund? 力\n" * 5


@dataclass
class Outcome:
    """What a user sees of one run of the command."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def bort(capfd):
    """Run ``bort vocab`` in this process."""

    def run(*arguments: object) -> Outcome:
        try:
            status = main(["vocab", *map(str, arguments)])
        except SystemExit as exit_:
            status = exit_.code
        return Outcome(status, *capfd.readouterr())

    return run


@pytest.fixture
def corpus(tmp_path) -> Path:
    path = tmp_path / "corpus" / "text.txt"
    path.parent.mkdir()
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_train_byte_level_bpe(bort, corpus, tmp_path):
    done = bort("train", "--input", corpus, "--output", tmp_path / "a", "--vocab_size", 300)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"15 sentences from 1 file → 300 tokens in {tmp_path / 'a'}\n"
    assert sorted(file.name for file in (tmp_path / "a").iterdir()) == ["merges.txt", "vocab.json"]
    tokenizer = Tokenizer.from_directory(tmp_path / "a")
    vocab = tokenizer.vocab
    assert (vocab.bos_id, vocab.pad_id, vocab.eos_id, vocab.unk_id, vocab.mask_id, len(vocab)) == (0, 1, 2, 3, 299, 300)
    ids = tokenizer.encode(TEXT)
    assert tokenizer.decode(ids) == TEXT
    assert not set(ids) & set(vocab.special_ids)
    bort("train", "--input", corpus.parent, "--output", tmp_path / "b", "--vocab_size", 300)
    for name in ("merges.txt", "vocab.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_train_sentencepiece(bort, corpus, tmp_path):
    done = bort("train", "--input", corpus, "--output", tmp_path / "a", "--vocab_size", 295, "--model_type", "sentencepiece")
    assert (done.returncode, done.stderr) == (0, "")
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["sentencepiece.model"]
    tokenizer = Tokenizer.from_directory(tmp_path / "a")
    assert tokenizer.vocab.special_ids == (0, 1, 2, 3, 4)
    for line in filter(None, TEXT.splitlines()):
        ids = tokenizer.encode(line)
        assert tokenizer.decode(ids) == line
        assert not set(ids) & set(tokenizer.vocab.special_ids)


@pytest.mark.parametrize(("model_type", "remedy"), [("bpe", "more text, or a smaller --min_frequency"), ("sentencepiece", "more text")])
def test_little_text_gives_a_smaller_vocabulary_and_a_warning(bort, corpus, tmp_path, model_type, remedy):
    done = bort("train", "--input", corpus, "--output", tmp_path / "a", "--vocab_size", 9999, "--model_type", model_type)
    assert done.returncode == 0
    assert done.stderr == f"bort: warning: the text has no more tokens to learn; for 9999 give {remedy}\n"
    assert 290 < len(Tokenizer.from_directory(tmp_path / "a").vocab) < 1000


def test_bytes_that_are_not_utf8_are_counted(bort, corpus, tmp_path):
    corpus.write_bytes(TEXT.encode() + b"caf\xe9\n")
    done = bort("train", "--input", corpus, "--output", tmp_path / "a", "--vocab_size", 300)
    assert done.returncode == 0
    assert done.stderr == "bort: warning: 1 line not in UTF-8; bytes that could not be decoded became U+FFFD\n"


def test_convert_there_and_back(bort, corpus, tmp_path):
    bort("train", "--input", corpus, "--output", tmp_path / "a", "--vocab_size", 300)
    there = bort("convert", "--vocab", tmp_path / "a", "--output", tmp_path / "b", "--to", "gluonnlp")
    assert there.returncode == 0
    assert there.stdout.startswith(f"300 tokens → {tmp_path / 'b'}/vocabulary-")
    back = bort("convert", "--vocab", tmp_path / "b", "--output", tmp_path / "c", "--to", "huggingface")
    assert back.returncode == 0
    for name in ("merges.txt", "vocab.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "c" / name).read_bytes()


def test_convert_roberta_to_the_published_files(bort, shared, tmp_path):
    assert bort("convert", "--vocab", shared / "data" / "vocab", "--output", tmp_path / "a", "--to", "gluonnlp").returncode == 0
    sums = {file.name: hashlib.sha1(file.read_bytes()).hexdigest() for file in (tmp_path / "a").iterdir()}
    assert sums == {
        "openwebtext_ccnews_stories_books_cased-2b804f8f.vocab": "2b804f8f90f9f93c07994b703ce508725061cf43",
        "openai_webtext_bpe_ranks-396d4d8e.json": "396d4d8ec90cb02f4d56e049e0e4add868bcd943",
    }


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--input", "absent.txt", "--vocab_size", "300"], "absent.txt: no such text file"),
        (["--input", "blank.txt", "--vocab_size", "300"], "no text in blank.txt"),
        (["--input", "blank.txt", "--vocab_size", "300", "--model_type", "sentencepiece"], "no text in blank.txt"),
        (["--input", "text.txt", "--vocab_size", "260"], "vocab_size must lie between 261"),
        (["--input", "text.txt", "--vocab_size", "260", "--model_type", "sentencepiece"], "vocab_size must lie between 261"),
        (["--input", "text.txt", "--vocab_size", "262", "--model_type", "sentencepiece"], "smaller than required_chars"),
        (["--input", "text.txt", "--vocab_size", "300", "--min_frequency", "0"], "min_frequency must be 1 or more"),
        (["--input", "text.txt", "--vocab_size", "300", "--min_frequency", "3", "--model_type", "sentencepiece"], "byte-level BPE only"),
        (["--input", "text.txt", "--vocab_size", "many"], "invalid int value"),
        (["--input", "text.txt"], "required: --vocab_size"),
    ],
)
def test_train_refuses_in_one_line(bort, corpus, monkeypatch, arguments, complaint):
    (corpus.parent / "blank.txt").write_text(" \n\n\t\n")
    monkeypatch.chdir(corpus.parent)
    done = bort("train", "--output", "out", *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("bort")
    assert complaint in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (corpus.parent / "out").exists()


def test_a_folder_with_a_vocabulary_gets_no_second_one(bort, corpus, tmp_path):
    bort("train", "--input", corpus, "--output", tmp_path / "a", "--vocab_size", 300)
    for arguments in (
        ["train", "--input", corpus, "--output", tmp_path / "a", "--vocab_size", 290, "--model_type", "sentencepiece"],
        ["convert", "--vocab", tmp_path / "a", "--output", tmp_path / "a", "--to", "gluonnlp"],
    ):
        done = bort(*arguments)
        assert done.returncode == 2
        complaint = f"{tmp_path / 'a'}/vocab.json: a vocabulary is there already; give another --output, or remove it"
        assert done.stderr == f"bort: error: {complaint}\n"
    assert len(list((tmp_path / "a").iterdir())) == 2


def test_convert_refuses_in_one_line(bort, corpus, tmp_path):
    bort("train", "--input", corpus, "--output", tmp_path / "a", "--vocab_size", 300, "--model_type", "sentencepiece")
    for vocab, complaint in ((tmp_path / "a", "has no merges to convert"), (tmp_path / "absent", "no vocabulary there")):
        done = bort("convert", "--vocab", vocab, "--output", tmp_path / "b", "--to", "gluonnlp")
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(f"bort: error: {vocab}: ")
        assert complaint in done.stderr
        assert done.stderr.count("\n") == 1
    assert not (tmp_path / "b").exists()


def test_a_disk_that_fills_up_leaves_nothing_half_written(bort, corpus, tmp_path):
    bort("train", "--input", corpus, "--output", tmp_path / "a", "--vocab_size", 300)
    (tmp_path / "b").mkdir()
    command = f"ulimit -f 1; exec {sys.executable} -m bort vocab convert --vocab {tmp_path / 'a'} --output {tmp_path / 'b'} --to gluonnlp"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    complaint = f"{tmp_path / 'b'}: cannot write the vocabulary: File too large; give another directory, or make room"
    assert done.stderr == f"bort: error: {complaint}\n"
    assert list((tmp_path / "b").iterdir()) == []
