"""Shards: all text, once, in memory-mapped files that say how they were made."""

from __future__ import annotations

import errno
import gzip
import json
import os
import shutil
import time
from itertools import chain, pairwise

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from bort import BortError, Tokenizer
from bort.corpus import pieces, shards
from bort.corpus.documents import ReadingReport, find_text_files, read_documents
from bort.corpus.shards import Corpus, create_shards, shard_names
from bort.parameters import read_parameters
from bort.sentencepiece_model import SentencePiece, train_model
from bort.settings import ShardSettings


@pytest.fixture(scope="module")
def files(repository):
    return find_text_files([str(repository / "test_data/corpus")])


@pytest.fixture
def small_pieces(monkeypatch):
    """Pieces of a few kilobytes, so that a small corpus has many, and most documents reach over one's end."""
    monkeypatch.setattr(pieces, "PIECE_BYTES", 3000)


def documents_of(files, tokenizer):
    return [np.concatenate(tokenizer.encode_batch(sentences)) for sentences in read_documents(files, ReadingReport())]


def stored_documents(folder):
    """Tokens of each document of each shard, and a check that the ends fit each other."""
    found = []
    for path in sorted(folder.glob("shard_*")):
        arrays = read_parameters(path)
        document_ends, sentence_ends, sequence_ends = (arrays[name] for name in ("document_ends", "sentence_ends", "sequence_ends"))
        for ends in (document_ends, sentence_ends, sequence_ends):
            assert (np.diff(ends, prepend=0) > 0).all()
            assert ends[-1:].tolist() == ([len(arrays["token_ids"])] if len(ends) else [])
        # No sequence goes beyond a document, and every document's end is a sentence's end.
        assert set(document_ends) <= set(sentence_ends)
        assert set(document_ends) <= set(sequence_ends)
        found.append([arrays["token_ids"][start:stop] for start, stop in pairwise([0, *document_ends.tolist()])])
    return found


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def sequences_of(folder):
    corpus = Corpus(folder)
    return [corpus[index].tolist() for index in range(len(corpus))]


def joined(lists):
    return list(chain.from_iterable(lists))


@pytest.mark.parametrize("num_outputs", [1, 3, 8])
def test_every_document_is_stored_once_whole_and_in_order(files, tokenizer, tmp_path, num_outputs, small_pieces):
    report = create_shards(files, tokenizer, tmp_path, ShardSettings(max_seq_length=32, num_outputs=num_outputs))
    expected = documents_of(files, tokenizer)
    found = [document for shard in stored_documents(tmp_path) for document in shard]
    assert len(found) == len(expected) == report.documents
    assert all(np.array_equal(one, two) for one, two in zip(found, expected, strict=True))
    assert report.tokens == sum(map(len, expected))
    assert report.sentences == sum(len(sentences) for sentences in read_documents(files, ReadingReport()))
    assert report.text_bytes == sum(file.stat().st_size for file in files)
    assert [path.name for path in sorted(tmp_path.iterdir())] == shard_names(num_outputs)


def test_the_header_says_how_a_shard_was_made(files, tokenizer, tmp_path):
    settings = ShardSettings(max_seq_length=32, num_outputs=2)
    create_shards(files, tokenizer, tmp_path, settings)
    for index, name in enumerate(shard_names(2)):
        with safe_open(tmp_path / name, framework="np") as opened:
            metadata = opened.metadata()
            assert opened.get_tensor("token_ids").dtype == np.uint16
            counts = json.loads(metadata["counts"])
            assert counts["tokens"] == len(opened.get_tensor("token_ids"))
            assert counts["documents"] == len(opened.get_tensor("document_ends"))
        assert (metadata["format"], metadata["version"], metadata["shard"]) == ("bort-shard", "2", str(index))
        assert metadata["vocab_fingerprint"] == tokenizer.vocab.fingerprint
        assert ShardSettings(**json.loads(metadata["settings"])) == settings
        sources = json.loads(metadata["source_files"])
        assert sources["number"] == len(files)
        assert [(source["path"], source["size"]) for source in sources["first"]] == [(str(file), file.stat().st_size) for file in files]


@pytest.mark.parametrize("num_outputs", [1, 3])
def test_the_number_of_workers_changes_no_byte(files, tokenizer, tmp_path, num_outputs, small_pieces):
    settings = ShardSettings(max_seq_length=24, num_outputs=num_outputs, short_seq_prob=0.5, seed=3)
    for workers in (1, 2, 5):
        create_shards(files, tokenizer, tmp_path / str(workers), settings, workers)
    assert contents(tmp_path / "1") == contents(tmp_path / "2") == contents(tmp_path / "5")


@pytest.mark.parametrize("form", ["blank_line", "line"])
def test_the_numbers_of_shards_and_of_pieces_change_no_sequence(files, tokenizer, tmp_path, monkeypatch, form):
    sets = []
    for piece_bytes, outputs in ((1 << 22, 1), (1 << 22, 5), (1000, 1), (77, 3)):
        monkeypatch.setattr(pieces, "PIECE_BYTES", piece_bytes)
        settings = ShardSettings(documents=form, max_seq_length=24, num_outputs=outputs, short_seq_prob=0.5, seed=3)
        create_shards(files, tokenizer, tmp_path / f"{piece_bytes}-{outputs}", settings)
        sets.append(sequences_of(tmp_path / f"{piece_bytes}-{outputs}"))
    assert sets[0] == sets[1] == sets[2] == sets[3]


def test_the_seed_changes_what_is_short_and_nothing_else(files, tokenizer, tmp_path):
    for seed in (0, 1):
        create_shards(files, tokenizer, tmp_path / str(seed), ShardSettings(max_seq_length=24, short_seq_prob=0.5, seed=seed))
    zero, one = (sequences_of(tmp_path / str(seed)) for seed in (0, 1))
    assert zero != one
    assert joined(zero) == joined(one)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    st.lists(
        st.lists(st.sampled_from(["a\n", "The cat sat.\n", "\n", " \r\n", "long " * 30 + "\n", "é"]), max_size=20).map("".join), max_size=4
    ),
    st.integers(1, 5),
    st.integers(1, 300),
)
def test_any_files_any_number_of_shards_any_size_of_pieces(tmp_path_factory, tokenizer, texts, num_outputs, piece_bytes):
    folder = tmp_path_factory.mktemp("any")
    texts.append("text\n")
    paths = [folder / f"{number}.txt" for number in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "PIECE_BYTES", piece_bytes)
        create_shards(paths, tokenizer, folder / "out", ShardSettings(max_seq_length=16, num_outputs=num_outputs))
    found = [document.tolist() for shard in stored_documents(folder / "out") for document in shard]
    assert found == [document.tolist() for document in documents_of(paths, tokenizer)]


def test_json_lines_and_lines_are_documents_too(tokenizer, tmp_path, small_pieces):
    texts = [f"Document {number}.\nIts second line.\n\nIts third." for number in range(300)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"body": text}) + "\n" for text in texts))
    settings = ShardSettings(documents="jsonl", text_key="body", max_seq_length=32, num_outputs=2)
    report = create_shards([tmp_path / "a.jsonl"], tokenizer, tmp_path / "json", settings)
    assert (report.documents, report.sentences) == (300, 900)
    (tmp_path / "a.txt").write_text("".join(text.replace("\n", " ") + "\n" for text in texts))
    report = create_shards([tmp_path / "a.txt"], tokenizer, tmp_path / "line", ShardSettings(documents="line", max_seq_length=64))
    assert (report.documents, report.sentences, report.sequences > 299) == (300, 300, True)
    assert stored_documents(tmp_path / "line")[0][7].tolist() == tokenizer.encode(texts[7].replace("\n", " "))


@pytest.mark.parametrize("workers", [1, 2])
def test_compressed_text_gives_the_same_sequences(files, tokenizer, tmp_path, workers):
    settings = ShardSettings(max_seq_length=24, num_outputs=2)
    create_shards(files, tokenizer, tmp_path / "plain", settings)
    packed = [tmp_path / f"{file.name}{('.gz', '.zst')[number % 2]}" for number, file in enumerate(files)]
    for file, target in zip(files, packed, strict=True):
        target.write_bytes({".gz": gzip.compress, ".zst": zstandard.compress}[target.suffix](file.read_bytes()))
    create_shards(packed, tokenizer, tmp_path / "packed", settings, workers)
    assert sequences_of(tmp_path / "packed") == sequences_of(tmp_path / "plain")
    assert [path.name for path in sorted((tmp_path / "packed").iterdir())] == shard_names(2)


def test_a_sentence_without_tokens_is_left_out(tmp_path):
    """A SentencePiece model has no token for a text that its normalisation empties, such as a lone control character."""
    tokenizer = Tokenizer(SentencePiece(train_model(["The cat sat on the mat.", "It's raining."] * 5, 300)))
    nothing = next(text for text in ("\u200b", "\x01", "\x7f", "\ufeff") if not tokenizer.encode(text) and text.strip())
    text = f"{nothing}\n\nThe cat\n{nothing}\nsat\n\n{nothing}\n{nothing}\n\n{nothing}\nThe mat\n\n{nothing}\n"
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    for line in (1 << 20, 16):
        with pytest.MonkeyPatch.context() as patch:
            # Batches of about one line each, so that documents begin in one and get their first token in another.
            patch.setattr("bort.corpus.lines._BLOCK", line)
            patch.setattr("bort.corpus.lines._FIRST_BLOCK_BEHIND", 4)
            report = create_shards([tmp_path / "a.txt"], tokenizer, tmp_path / str(line), ShardSettings(max_seq_length=9))
        assert (report.documents, report.sentences) == (2, 3)
        expected = [tokenizer.encode("The cat") + tokenizer.encode("sat"), tokenizer.encode("The mat")]
        assert [document.tolist() for document in stored_documents(tmp_path / str(line))[0]] == expected


def test_the_corpus_gives_every_sequence_once_and_says_what_it_is(files, tokenizer, tmp_path):
    report = create_shards(files, tokenizer, tmp_path, ShardSettings(max_seq_length=24, num_outputs=4))
    corpus = Corpus(tmp_path, tokenizer.vocab.fingerprint)
    sequences = [corpus[index] for index in range(len(corpus))]
    assert corpus.max_seq_length == 24
    assert max(map(len, sequences)) <= 22
    assert sequences[0].dtype == np.int32
    assert not np.isin(np.concatenate(sequences), tokenizer.vocab.special_ids).any()
    assert np.concatenate(sequences).tolist() == np.concatenate(documents_of(files, tokenizer)).tolist()
    assert corpus.lengths.dtype == np.int32
    assert corpus.lengths.tolist() == list(map(len, sequences))
    assert corpus.shard_bounds[[0, -1]].tolist() == [0, len(corpus)]
    description = corpus.description
    assert (description["documents"], description["sequences"], description["num_shards"]) == (report.documents, len(corpus), 4)
    assert description["source_files"] == [{"path": str(file), "size": file.stat().st_size} for file in files]
    assert json.loads(json.dumps(description)) == description
    for index in (-1, len(corpus)):
        with pytest.raises(IndexError):
            corpus[index]


def test_sentence_starts_are_where_sentences_begin(files, tokenizer, tmp_path):
    create_shards(files, tokenizer, tmp_path, ShardSettings(max_seq_length=12, num_outputs=3))
    corpus = Corpus(tmp_path)
    expected = [tokenizer.encode(sentence) for document in read_documents(files, ReadingReport()) for sentence in document]
    found = []
    for index in range(len(corpus)):
        tokens, starts = corpus[index].tolist(), corpus.sentence_starts(index).tolist()
        head, *parts = (tokens[start:stop] for start, stop in pairwise([0, *starts, len(tokens)]))
        if head:
            found[-1] += head
        found += parts
    assert found == expected


def test_the_fingerprint_is_of_contents_and_not_of_names_and_times(files, tokenizer, tmp_path):
    settings = ShardSettings(max_seq_length=24, num_outputs=2)
    create_shards(files, tokenizer, tmp_path / "one", settings)
    for file in files:
        (tmp_path / "copy").mkdir(exist_ok=True)
        (tmp_path / "copy" / file.name).write_bytes(file.read_bytes())
    copies = find_text_files([str(tmp_path / "copy")])
    create_shards(copies, tokenizer, tmp_path / "two", settings)
    assert Corpus(tmp_path / "one").fingerprint == Corpus(tmp_path / "two").fingerprint
    copies[0].write_text(copies[0].read_text().replace("e", "i", 1))
    create_shards(copies, tokenizer, tmp_path / "two", settings)
    assert Corpus(tmp_path / "one").fingerprint != Corpus(tmp_path / "two").fingerprint


@pytest.mark.parametrize("text", ["", "\n\n \n"])
@pytest.mark.parametrize("workers", [1, 2])
def test_an_empty_corpus_is_an_error_and_leaves_nothing(tmp_path, tokenizer, text, workers):
    (tmp_path / "empty.txt").write_text(text)
    with pytest.raises(BortError, match=r"empty\.txt: no text in it"):
        create_shards([tmp_path / "empty.txt"], tokenizer, tmp_path / "out", ShardSettings(num_outputs=2), workers)
    assert not (tmp_path / "out").exists()


def test_an_empty_corpus_leaves_an_older_set_as_it_was(files, tmp_path, tokenizer):
    create_shards(files, tokenizer, tmp_path / "out", ShardSettings())
    before = contents(tmp_path / "out")
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(BortError, match="no text"):
        create_shards([tmp_path / "empty.txt"], tokenizer, tmp_path / "out", ShardSettings())
    assert contents(tmp_path / "out") == before


def test_more_shards_than_documents_leave_some_empty(tokenizer, tmp_path):
    (tmp_path / "a.txt").write_text("The cat sat.\nOn the mat.\n\nIt rained.\n")
    report = create_shards([tmp_path / "a.txt"], tokenizer, tmp_path / "out", ShardSettings(max_seq_length=9, num_outputs=50))
    assert (report.documents, report.empty_shards) == (2, 48)
    assert report.warnings() == ["48 empty shards: the text has 2 documents, too few or too large for so many shards"]
    corpus = Corpus(tmp_path / "out")
    expected = [tokenizer.encode("The cat sat.") + tokenizer.encode("On the mat."), tokenizer.encode("It rained.")]
    assert joined(sequences_of(tmp_path / "out")) == joined(expected)
    assert len(corpus.lengths) == len(corpus)
    again = create_shards([tmp_path / "a.txt"], tokenizer, tmp_path / "out", ShardSettings(max_seq_length=9, num_outputs=50))
    assert (again.kept_shards, again.empty_shards, again.documents) == (50, 48, 2)


@pytest.mark.parametrize("wrong", [{"documents": "page"}, {"max_seq_length": 3}, {"seed": -1}, {"seed": 2**63}, {"num_outputs": 0}])
def test_settings_out_of_range_are_refused_by_name(wrong):
    with pytest.raises(BortError, match=f"^{next(iter(wrong))} must be "):
        ShardSettings(**wrong)


def test_text_that_changes_while_it_is_read_is_an_error(files, tokenizer, tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("Some text.\n" * 100)
    original = shards._make_shards

    def change_first(*arguments):
        path.write_text("Other.\n")
        original(*arguments)

    monkeypatch.setattr(shards, "_make_shards", change_first)
    with pytest.raises(BortError, match=r"a\.txt: its size has changed"):
        create_shards([path], tokenizer, tmp_path / "out", ShardSettings())


def test_finished_shards_of_the_same_text_and_settings_are_kept(files, tokenizer, tmp_path):
    settings = ShardSettings(max_seq_length=24, num_outputs=3)
    first = create_shards(files, tokenizer, tmp_path, settings)
    names = shard_names(3)
    before = contents(tmp_path)
    (tmp_path / names[1]).unlink()
    times = {name: (tmp_path / name).stat().st_mtime_ns for name in (names[0], names[2])}
    second = create_shards(files, tokenizer, tmp_path, settings)
    assert contents(tmp_path) == before
    assert times == {name: (tmp_path / name).stat().st_mtime_ns for name in times}
    assert (second.kept_shards, second.documents, second.tokens) == (2, first.documents, first.tokens)
    assert 0 < second.kept_bytes < second.text_bytes == first.text_bytes
    damaged = tmp_path / names[0]
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert create_shards(files, tokenizer, tmp_path, settings).kept_shards == 2
    assert contents(tmp_path) == before


def test_shards_of_other_texts_or_settings_are_not_kept(files, tokenizer, tmp_path):
    copies = [tmp_path / file.name for file in files]
    for file, copy in zip(files, copies, strict=True):
        shutil.copy(file, copy)
    settings = ShardSettings(max_seq_length=24, num_outputs=2)
    create_shards(copies, tokenizer, tmp_path / "out", settings)
    assert create_shards(copies, tokenizer, tmp_path / "out", settings).kept_shards == 2
    assert create_shards(copies, tokenizer, tmp_path / "out", ShardSettings(max_seq_length=24, num_outputs=2, seed=1)).kept_shards == 0
    os.utime(copies[0], ns=(time.time_ns(), time.time_ns()))
    assert create_shards(copies, tokenizer, tmp_path / "out", ShardSettings(max_seq_length=24, num_outputs=2, seed=1)).kept_shards == 0
    assert create_shards(copies[:-1], tokenizer, tmp_path / "out", settings).kept_shards == 0


def test_work_of_other_settings_is_discarded_and_a_folder_of_others_is_not(files, tokenizer, tmp_path):
    work = tmp_path / "out" / ".work"
    work.mkdir(parents=True)
    (work / "plan.json").write_text('{"format": "bort-shard"}')
    (work / "piece_000000000000000").write_text("of another text")
    create_shards(files, tokenizer, tmp_path / "out", ShardSettings(max_seq_length=24))
    create_shards(files, tokenizer, tmp_path / "once", ShardSettings(max_seq_length=24))
    assert contents(tmp_path / "out") == contents(tmp_path / "once")
    work = tmp_path / "theirs" / ".work"
    work.mkdir(parents=True)
    (work / "thesis.tex").write_text("years of work")
    with pytest.raises(BortError, match=r"\.work: not a folder of bort data"):
        create_shards(files, tokenizer, tmp_path / "theirs", ShardSettings())
    assert (work / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("plan", [None, "{}", "[]", "not JSON"])
def test_a_folder_of_others_outlives_a_run_with_nothing_to_do(files, tokenizer, tmp_path, plan):
    create_shards(files, tokenizer, tmp_path, ShardSettings())
    (tmp_path / ".work").mkdir()
    (tmp_path / ".work" / "thesis.tex").write_text("years of work")
    if plan is not None:
        (tmp_path / ".work" / "plan.json").write_text(plan)
    assert create_shards(files, tokenizer, tmp_path, ShardSettings()).kept_shards == 1
    assert (tmp_path / ".work" / "thesis.tex").read_text() == "years of work"


@pytest.mark.usefixtures("small_pieces")
def test_a_piece_whose_pages_were_lost_is_made_again(files, tokenizer, tmp_path, monkeypatch):
    create_shards(files, tokenizer, tmp_path / "once", ShardSettings(max_seq_length=24))

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(shards, "assemble", stop)
    with pytest.raises(KeyboardInterrupt):
        create_shards(files, tokenizer, tmp_path / "out", ShardSettings(max_seq_length=24))
    monkeypatch.undo()
    monkeypatch.setattr(pieces, "PIECE_BYTES", 3000)
    _, victim, *others = sorted((tmp_path / "out" / ".work").glob("piece_*"))
    assert others
    victim.write_bytes(bytes(500) + victim.read_bytes()[500:])
    report = create_shards(files, tokenizer, tmp_path / "out", ShardSettings(max_seq_length=24))
    assert contents(tmp_path / "out") == contents(tmp_path / "once")
    assert 0 < report.kept_bytes < report.text_bytes


@pytest.mark.parametrize(("form", "text"), [("line", b"hello\nworld\n"), ("blank_line", b"hello\n\nworld\n"), ("blank_line", b"\nworld\n")])
def test_pieces_that_end_within_a_byte_order_mark_lose_nothing(tokenizer, tmp_path, monkeypatch, form, text):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + text)
    monkeypatch.setattr(pieces, "PIECE_BYTES", 2)
    report = create_shards([tmp_path / "a.txt"], tokenizer, tmp_path / "out", ShardSettings(documents=form, max_seq_length=9))
    assert report.documents == len(text.split())


def test_a_document_behind_megabytes_of_white_space_is_kept(tokenizer, tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_bytes(b"abc def\n" * 75_000 + b" " * 3_000_000 + b"\nlast document\n" + b"z z\n" * 50)
    monkeypatch.setattr(pieces, "PIECE_BYTES", 400_000)
    report = create_shards([tmp_path / "a.txt"], tokenizer, tmp_path / "out", ShardSettings(max_seq_length=64))
    assert (report.documents, report.sentences) == (2, 75_051)


def test_there_are_no_more_workers_than_pieces(files, tokenizer, tmp_path, monkeypatch):
    asked, run_as_asked = [], shards.run_tasks

    def run_tasks(shared, next_task, num_workers):
        asked.append(num_workers)
        return run_as_asked(shared, next_task, 1)

    monkeypatch.setattr(shards, "run_tasks", run_tasks)
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"text"))
    create_shards([*files, tmp_path / "b.txt.gz"], tokenizer, tmp_path / "out", ShardSettings(num_outputs=3), num_workers=999)
    assert asked == [1, 3]


def test_only_a_lack_of_room_is_called_one(files, tokenizer, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(number, os.strerror(number), "place")

    monkeypatch.setattr(shards, "_take_up_work", fail)
    number = errno.EDQUOT
    with pytest.raises(BortError, match=r"^place: cannot write shards: Disk quota exceeded; make room "):
        create_shards(files, tokenizer, tmp_path / "out", ShardSettings())
    number = errno.EACCES
    with pytest.raises(PermissionError):
        create_shards(files, tokenizer, tmp_path / "out", ShardSettings())
