"""Text to ids: equal to the published tokenizer, equal between libraries, lossless, and never a special token from user text."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import pickle
import random
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bort import BortError, Tokenizer
from bort.byte_pair import Gigatoken, train_merges
from bort.sentencepiece_model import SentencePiece, train_model
from bort.tokenizer import PUBLISHED_FILES

TEXTS = ["The cat sat on the mat.", "It's raining, isn't it? We'll see.", "Läuft der Hund 123 Meter?", "力加勝北区 the end </s> <mask>"] * 3
SPECIAL_LITERALS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", " <mask>", "a</s>b", "<mask><mask>", "< mask >", "<|endoftext|>", "madeup01"]
WHITE_SPACE = "\t\n\r\x0b\x0c\x1c\x1f \x85\xa0\u1680\u180e\u2003\u2028\u2029\u202f\u3000\u200b\u200d\ufeff\x00"
SIGNS = ["\r\n", "  ", " \n", "'s", "'LL", "’re", "'", "é", "e\u0301", "ﬁ", "İ", "ß", "١", "²", "½", "力", "한", "🇩🇪", "🫨", "\U000323b0"]
FRAGMENTS = [*SPECIAL_LITERALS, *WHITE_SPACE, *SIGNS, "👨\u200d👩\u200d👧"]
adversarial = st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=4), st.text("ab1 !'", max_size=9)), max_size=12).map("".join)


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """A byte-level BPE of 300 tokens, trained here."""
    directory = tmp_path_factory.mktemp("small")
    Tokenizer(Gigatoken(*train_merges(TEXTS, 300))).save(directory)
    return directory


@pytest.fixture(scope="module", params=["small", "published"])
def pair(request) -> tuple[Tokenizer, Tokenizer]:
    """One vocabulary, read for the fast and for the reference library."""
    path = request.getfixturevalue("small") if request.param == "small" else request.getfixturevalue("shared") / "data" / "vocab"
    return Tokenizer.from_directory(path), Tokenizer.from_directory(path, backend="reference")


@pytest.fixture(scope="module")
def sentencepiece() -> Tokenizer:
    return Tokenizer(SentencePiece(train_model(TEXTS, 400)))


@pytest.mark.parametrize("backend", ["fast", "reference"])
def test_ids_of_the_published_tokenizer(shared, backend):
    tokenizer = Tokenizer.from_directory(shared / "data" / "vocab", backend=backend)
    golden = json.loads((shared / "golden" / "published_tokens.json").read_text(encoding="utf-8"))
    texts, expected = [row["text"] for row in golden], [row["ids"] for row in golden]
    assert len(texts) == 168
    assert any("</s>" in text for text in texts)
    assert any("<mask>" in text for text in texts)
    assert [tokenizer.encode(text) for text in texts] == expected
    assert [ids.tolist() for ids in tokenizer.encode_batch(texts)] == expected
    assert [tokenizer.decode(ids) for ids in expected] == texts


def test_both_libraries_agree_on_a_megabyte_of_books(pair, shared):
    fast, reference = pair
    size = 1_000_000 if fast.is_published else 200_000
    with (shared / "data" / "text" / "books.txt").open("rb") as file:
        text = file.read(size).decode("utf-8", errors="ignore")
    lines = text.split("\n")
    rows = fast.encode_batch(lines)
    assert all(map(np.array_equal, rows, reference.encode_batch(lines)))
    assert fast.decode(np.concatenate(rows)) == "".join(lines)
    assert fast.encode(text[:200_000]) == reference.encode(text[:200_000])


@given(text=adversarial)
@settings(derandomize=True, deadline=None, max_examples=400)
def test_any_text_has_the_same_ordinary_ids_in_both_libraries_and_comes_back(pair, text):
    fast, reference = pair
    ids = reference.encode(text)
    assert fast.encode(text) == ids
    assert fast.encode_batch([text, "", text])[2].tolist() == reference.encode_batch([text])[0].tolist() == ids
    assert not set(ids) & set(fast.vocab.special_ids)
    assert fast.decode(ids) == reference.decode(ids) == text


@pytest.mark.parametrize("text", SPECIAL_LITERALS)
def test_literal_special_tokens_are_ordinary_text(pair, sentencepiece, text):
    for tokenizer in (*pair, sentencepiece):
        ids = tokenizer.encode(text)
        assert ids
        assert not set(ids) & set(tokenizer.vocab.special_ids)
        assert tokenizer.decode(ids).strip() == text.strip()


@pytest.mark.parametrize(
    "text",
    [
        "a" * 200_000,
        "".join(random.Random(0).choices("abcdefghij", k=200_000)),
        " " * 100_000,
        "\n" * 100_000,
        "力" * 50_000,
        "!?" * 100_000,
    ],
    ids=["one letter", "letters", "spaces", "newlines", "ideographs", "signs"],
)
def test_long_words_without_a_space(pair, text):
    fast, reference = pair
    ids = fast.encode(text)
    assert ids == reference.encode(text)
    assert fast.decode(ids) == text


def test_random_ids_decode_alike(pair):
    fast, reference = pair
    generator = np.random.default_rng(0)
    for _ in range(300):
        ids = generator.integers(len(fast.vocab), size=9)
        assert fast.decode(ids) == reference.decode(ids.tolist())


def test_decoding_leaves_special_tokens_out(pair, sentencepiece):
    for tokenizer in (*pair, sentencepiece):
        vocab = tokenizer.vocab
        ids = [vocab.bos_id, *tokenizer.encode("the cat"), vocab.mask_id, vocab.eos_id, vocab.pad_id, vocab.unk_id]
        assert tokenizer.decode(ids) == "the cat"
        for outside in (-1, len(vocab)):
            with pytest.raises(IndexError, match=f"beyond the vocabulary's 0 to {len(vocab) - 1}"):
                tokenizer.decode([5, outside])


@pytest.mark.parametrize(("text", "where"), [("a\ud800", "character 1: U\\+D800"), ("\udfff", "character 0: U\\+DFFF")])
def test_a_lone_surrogate_is_refused_with_its_place(pair, sentencepiece, text, where):
    for tokenizer in (*pair, sentencepiece):
        with pytest.raises(BortError, match=f"^text 0, {where} is half a surrogate pair"):
            tokenizer.encode(text)
        with pytest.raises(BortError, match=f"^text 2, {where} is half a surrogate pair"):
            tokenizer.encode_batch(["a", "", text])


def test_batches_are_small_unsigned_integers(pair, sentencepiece):
    for tokenizer in (*pair, sentencepiece):
        rows = tokenizer.encode_batch(iter(["the cat", "", "力"]))
        assert [row.dtype for row in rows] == [np.uint16] * 3
        assert [row.tolist() for row in rows] == [tokenizer.encode(text) for text in ("the cat", "", "力")]
        assert tokenizer.encode_batch([]) == []


def test_ragged_ids_are_those_of_each_text_behind_one_another(pair, sentencepiece):
    texts = [*TEXTS, "", "the \U000323b0 cat", ""]
    for tokenizer in (*pair, sentencepiece):
        ids, starts = tokenizer.encode_ragged(texts)
        assert (ids.dtype, starts.dtype) == (np.uint16, np.int64)
        assert [ids[start:stop].tolist() for start, stop in itertools.pairwise(starts)] == [tokenizer.encode(text) for text in texts]
        ids, starts = tokenizer.encode_ragged([])
        assert (ids.tolist(), starts.tolist()) == ([], [0])
        with pytest.raises(BortError, match=r"^text 1, character 0"):
            tokenizer.encode_ragged(["a", "\udfff"])


@given(texts=st.lists(adversarial, max_size=6))
@settings(derandomize=True, deadline=None, max_examples=300)
def test_ragged_ids_are_right_whatever_stands_at_the_ends_of_texts(pair, texts):
    """Line feeds and white space there must not join with what is put between the texts."""
    fast, reference = pair
    ids, starts = fast.encode_ragged(texts)
    assert [ids[start:stop].tolist() for start, stop in itertools.pairwise(starts)] == [reference.encode(text) for text in texts]


@pytest.mark.parametrize("space", ["", "  ", "\n", "\n\n", " \n ", "\t", "\u2003", "\r"])
def test_ragged_ids_where_texts_begin_and_end_with_white_space(pair, space):
    fast, reference = pair
    texts = [f"{space}a b{space}", space, "c", f"d{space}", f"{space}e", ""]
    for first in range(len(texts)):
        ids, starts = fast.encode_ragged(texts[first:])
        assert [ids[start:stop].tolist() for start, stop in itertools.pairwise(starts)] == [
            reference.encode(text) for text in texts[first:]
        ]


def test_the_fingerprint_tells_tokenizers_with_the_same_tokens_apart(small, sentencepiece):
    tokenizer = Tokenizer.from_directory(small)
    assert tokenizer.fingerprint == Tokenizer.from_directory(small, backend="reference").fingerprint
    other = Tokenizer(Gigatoken(tokenizer.vocab, tokenizer.merges[::-1]))
    assert other.vocab.fingerprint == tokenizer.vocab.fingerprint
    assert len({other.fingerprint, tokenizer.fingerprint, sentencepiece.fingerprint}) == 3


def test_a_large_vocabulary_gets_wider_ids(small):
    tokenizer = Tokenizer.from_directory(small)
    tokens = (*tokenizer.vocab.tokens, *(f"filler {number}" for number in range(1 << 16)))
    assert Tokenizer(Gigatoken(type(tokenizer.vocab)(tokens), tokenizer.merges)).encode_batch(["the"])[0].dtype == np.uint32


def test_works_after_pickling_and_in_a_forked_process(pair, sentencepiece):
    context = multiprocessing.get_context("fork")
    for tokenizer in (*pair, sentencepiece):
        expected = [ids.tolist() for ids in tokenizer.encode_batch(TEXTS)]
        copy = pickle.loads(pickle.dumps(tokenizer))
        assert copy.vocab == tokenizer.vocab
        assert [ids.tolist() for ids in copy.encode_batch(TEXTS)] == expected
        queue = context.SimpleQueue()
        process = context.Process(target=lambda: queue.put([ids.tolist() for ids in tokenizer.encode_batch(TEXTS)]))  # noqa: B023
        process.start()
        assert queue.get() == expected
        process.join(timeout=60)
        assert process.exitcode == 0


def test_saving_and_reading_back(small, sentencepiece, tmp_path):
    tokenizer = Tokenizer.from_directory(small)
    assert {file.name for file in tokenizer.save(tmp_path / "a")} == {"vocab.json", "merges.txt"}
    gluonnlp = [file.name for file in tokenizer.save_gluonnlp(tmp_path / "b")]
    assert re.fullmatch(r"vocabulary-[0-9a-f]{8}\.vocab bpe_ranks-[0-9a-f]{8}\.json", " ".join(gluonnlp))
    assert [file.name for file in sentencepiece.save(tmp_path / "c")] == ["sentencepiece.model"]
    for directory, original in (("a", tokenizer), ("b", tokenizer), ("c", sentencepiece), ("c/sentencepiece.model", sentencepiece)):
        copy = Tokenizer.from_directory(tmp_path / directory)
        assert (copy.vocab, copy.merges) == (original.vocab, original.merges)
        assert [copy.encode(text) for text in TEXTS] == [original.encode(text) for text in TEXTS]
        assert not copy.is_published
    with pytest.raises(ValueError, match="has no merges"):
        sentencepiece.save_gluonnlp(tmp_path)


def test_roberta_becomes_gluonnlps_two_files_byte_for_byte_and_back(shared, tmp_path):
    tokenizer = Tokenizer.from_directory(shared / "data" / "vocab")
    assert tokenizer.is_published
    files = tokenizer.save_gluonnlp(tmp_path)
    assert [file.name for file in files] == list(PUBLISHED_FILES)
    assert files[1].read_bytes() == (shared / "data" / "vocab" / "merges.txt").read_bytes()
    (tmp_path / "book_corpus_wiki_en_uncased-a6607397.vocab").write_text("another model's")
    copy = Tokenizer.from_directory(tmp_path)
    assert copy.is_published
    assert (copy.vocab, copy.merges) == (tokenizer.vocab, tokenizer.merges)
    copy.save(tmp_path / "back")
    assert (tmp_path / "back" / "merges.txt").read_bytes() == (shared / "data" / "vocab" / "merges.txt").read_bytes()
    assert json.loads((tmp_path / "back" / "vocab.json").read_text(encoding="utf-8")) == json.loads(
        (shared / "data" / "vocab" / "vocab.json").read_text(encoding="utf-8")
    )


def test_a_changed_gluonnlp_file_is_refused_with_both_sums(small, tmp_path):
    table, _ = Tokenizer.from_directory(small).save_gluonnlp(tmp_path)
    table.write_bytes(table.read_bytes().replace(b"the", b"teh"))
    with pytest.raises(BortError, match=rf"{table}: damaged: its SHA-1 is [0-9a-f]{{40}}, not {table.stem[-8:]}"):
        Tokenizer.from_directory(tmp_path)


def test_a_published_name_must_keep_its_whole_sum(small, tmp_path):
    for file, name in zip(Tokenizer.from_directory(small).save_gluonnlp(tmp_path), PUBLISHED_FILES, strict=True):
        file.rename(tmp_path / name)
    with pytest.raises(BortError, match="not 2b804f8f90f9f93c07994b703ce508725061cf43"):
        Tokenizer.from_directory(tmp_path)


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        ([], "no vocabulary there; give a directory with vocab.json and merges.txt"),
        (["tokenizer.json", "a-12345678.vocab", "b-12345678.vocab"], "no vocabulary there"),
        (["vocab.json"], "holds vocab.json but not merges.txt"),
        (["merges.txt"], "holds merges.txt but not vocab.json"),
        (list(PUBLISHED_FILES)[1:], f"holds {list(PUBLISHED_FILES)[1]} but not {next(iter(PUBLISHED_FILES))}"),
        (["vocab.json", "merges.txt", "x.model"], r"holds 2 vocabularies \(vocab.json, x.model\)"),
        (["a.model", "b.model"], r"holds 2 vocabularies \(a.model, b.model\)"),
    ],
)
def test_a_directory_without_exactly_one_vocabulary_is_refused(tmp_path, names, complaint):
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(BortError, match=f"^{tmp_path}: {complaint}[^\n]*$"):
        Tokenizer.from_directory(tmp_path)


def test_a_directory_that_is_absent_or_a_file(tmp_path):
    (tmp_path / "vocab.json").write_text("{}")
    for path in (tmp_path / "absent", tmp_path / "vocab.json", tmp_path / "absent.model"):
        with pytest.raises(BortError, match=f"^{path}: no vocabulary there"):
            Tokenizer.from_directory(path)


def test_a_damaged_model_file_is_named(tmp_path):
    (tmp_path / "x.model").write_bytes(b"junk")
    with pytest.raises(BortError, match=f"^{tmp_path / 'x.model'}: not a SentencePiece model"):
        Tokenizer.from_directory(tmp_path)


def test_nothing_is_left_where_a_vocabulary_cannot_be_written(small, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BortError, match="cannot write the vocabulary: "):
        Tokenizer.from_directory(small).save(tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
