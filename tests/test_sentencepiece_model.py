"""SentencePiece models of ours and of others: their tables, and that no text yields a special id."""

from __future__ import annotations

import io

import numpy as np
import pytest
import sentencepiece

from bort import BortError
from bort.sentencepiece_model import SentencePiece, train_model

SENTENCE = "the cat sat on a mat while seven brown dogs watched old trains running quickly between green hills and distant rivers"
TEXTS = [" ".join(SENTENCE.split()[line % 7 : line % 7 + 2 + line % 11]) for line in range(60)]
LITERALS = "a <mask> b </s> c <s> d <pad> e <unk> f"


def _foreign(**options) -> bytes:
    """A model trained by other people's settings."""
    model = io.BytesIO()
    texts = iter([*TEXTS, *["<mask> and </s> again"] * 20])
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=texts, model_writer=model, hard_vocab_limit=False, minloglevel=2, **options)
    return model.getvalue()


@pytest.fixture(scope="module")
def ours() -> SentencePiece:
    return SentencePiece(train_model(TEXTS, 295))


def test_training_puts_special_tokens_first_and_bytes_behind_them(ours):
    assert len(ours.vocab) == 295
    assert ours.vocab.tokens[:6] == ("<s>", "<pad>", "</s>", "<unk>", "<mask>", "<0x00>")
    assert train_model(TEXTS, 295) == train_model(TEXTS, 295)


def test_long_lines_are_learnt_too():
    line = " ".join(TEXTS * 5)
    assert len(line) > 4192, "the longest that SentencePiece would take by default"
    assert "at" in SentencePiece(train_model([line], 2000)).vocab


def test_our_models_give_no_special_id_for_any_text(ours):
    text = f"{LITERALS} 力 😀 \x00 \u2581"
    ids = ours.encode(text)
    assert not set(ids) & set(ours.vocab.special_ids)
    assert ours.decode(ids) == f"{LITERALS} 力 😀 \x00", "a lower one-eighth block is how SentencePiece writes a space"


@pytest.mark.parametrize(
    "options",
    [
        {"user_defined_symbols": ["<mask>", "<pad>"], "vocab_size": 90},
        {"control_symbols": ["<mask>"], "pad_id": 3, "vocab_size": 90},
        {"model_type": "bpe", "user_defined_symbols": ["<mask>"], "vocab_size": 90},
        {"model_type": "bpe", "byte_fallback": True, "vocab_size": 350},
        {"bos_id": -1, "eos_id": 1, "pad_id": 0, "unk_id": 2, "vocab_size": 90},
        {"bos_piece": "[CLS]", "eos_piece": "[SEP]", "unk_piece": "[UNK]", "pad_piece": "[PAD]", "pad_id": 3, "vocab_size": 90},
    ],
)
def test_models_of_others_keep_their_ids_and_lend_none_of_the_special_ones_to_text(options):
    contents = _foreign(**options)
    theirs = sentencepiece.SentencePieceProcessor(model_proto=contents)
    model = SentencePiece(contents)
    pieces = [theirs.id_to_piece(position) for position in range(len(theirs))]
    absent = [token for token in ("<s>", "<pad>", "</s>", "<unk>", "<mask>") if token in model.vocab.tokens[len(pieces) :]]
    assert model.vocab.tokens[len(pieces) :] == tuple(absent), "what the model lacks follows behind its pieces, in this order"
    declared = {theirs.unk_id(), theirs.bos_id(), theirs.eos_id(), theirs.pad_id()}
    for position, piece in enumerate(pieces):
        assert model.vocab.to_tokens(position) == piece or position in declared
    assert model.vocab.unk_id == theirs.unk_id()
    plain = "the cat sat on the mat"
    assert model.encode(plain) == theirs.encode(plain)
    assert not set(model.encode(LITERALS)) & (set(model.vocab.special_ids) - {model.vocab.unk_id})
    assert model.decode(model.encode(plain)) == plain


def test_a_user_defined_mask_would_have_leaked():
    contents = _foreign(user_defined_symbols=["<mask>"], vocab_size=90)
    theirs = sentencepiece.SentencePieceProcessor(model_proto=contents)
    assert theirs.piece_to_id("<mask>") in theirs.encode(LITERALS)
    assert SentencePiece(contents).vocab.mask_id == theirs.piece_to_id("<mask>")


def test_without_byte_fallback_an_unknown_character_is_unknown():
    model = SentencePiece(_foreign(vocab_size=90))
    assert model.vocab.unk_id in model.encode("力")


def test_batches_are_arrays_of_the_dtype_asked_for(ours):
    rows = ours.encode_batch(["the cat", ""], np.uint32)
    assert [row.dtype for row in rows] == [np.uint32, np.uint32]
    assert [row.tolist() for row in rows] == [ours.encode("the cat"), []]


@pytest.mark.parametrize("contents", [b"", b"junk", b"\x00" * 100, b"\x0a\x02\x0a\x00", b"\x0a\x04\x0a\x02\xff\xfe"])
def test_what_is_no_model_is_refused(contents, capfd):
    with pytest.raises(BortError, match=r"^not a SentencePiece model: [^\n]+$"):
        SentencePiece(contents)
    assert capfd.readouterr().err == ""


def test_a_truncated_model_is_refused():
    contents = train_model(TEXTS, 295)
    for length in (1, 10, len(contents) // 2, len(contents) - 1):
        with pytest.raises(BortError, match="not a SentencePiece model"):
            SentencePiece(contents[:length])


@pytest.mark.parametrize(
    ("vocab_size", "complaint"),
    [(260, "between 261"), (1 << 40, "and 1048576"), (262, "smaller than required_chars")],
)
def test_training_says_which_size_would_do(vocab_size, complaint, capfd):
    with pytest.raises(BortError, match=complaint) as error:
        train_model(TEXTS, vocab_size)
    assert "\n" not in str(error.value)
    assert capfd.readouterr().err == ""


def test_training_on_little_text_gives_the_pieces_that_are_there():
    model = SentencePiece(train_model(TEXTS, 5000))
    assert 295 <= len(model.vocab) < 1000
