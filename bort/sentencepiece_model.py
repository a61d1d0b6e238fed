"""SentencePiece models: any ``.model`` file, read so that it fits the rest of the project.

Notable: whatever a model's author declared, the special tokens are made control pieces in memory before the model runs. SentencePiece never
yields a control piece from text, while a user-defined ``<mask>`` would be yielded by the word "<mask>" in a text. Ids stay as they are.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable

import numpy as np
import sentencepiece
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import DTypeLike, NDArray
from sentencepiece import sentencepiece_model_pb2

from bort.errors import BortError
from bort.vocabulary import Vocab, check_vocab_size

SENTENCEPIECE_FILE = "sentencepiece.model"
_THREADS = 4  # fixed, since the trained scores depend on how sums are split among threads


class SentencePiece:
    """A SentencePiece model, run by the sentencepiece library.

    ``vocab`` holds the model's pieces under the model's ids. The pieces that it declares as unknown, begin, end and padding go by the names
    ``<unk>``, ``<s>``, ``</s>`` and ``<pad>`` whatever it calls them; special tokens that it does not have follow behind its last piece,
    in the order of ``Vocab.special_tokens``. The id of ``<unk>`` is the one special id that text can yield, and only from a model without
    byte fallback, for a character that its author left out.

    Args:
        model: contents of a ``.model`` file.

    Raises:
        BortError: if the bytes are not a SentencePiece model.
    """

    def __init__(self, model: bytes) -> None:
        self._model = model
        try:
            description = sentencepiece_model_pb2.ModelProto.FromString(model)  # type: ignore[attr-defined]
            if not description.pieces:
                raise BortError("not a SentencePiece model: it has no pieces")
            if not all(isinstance(piece.piece, str) for piece in description.pieces):
                raise BortError("not a SentencePiece model: a piece is not UTF-8")
            kinds = description.SentencePiece
            for piece in description.pieces:
                if piece.piece in Vocab.special_tokens and piece.type != kinds.UNKNOWN:
                    piece.type = kinds.CONTROL
            self._library = sentencepiece.SentencePieceProcessor(model_proto=description.SerializeToString())
        except (DecodeError, RuntimeError) as error:
            raise BortError(f"not a SentencePiece model: {' '.join(str(error).split())}") from None
        self.vocab = Vocab(_tokens([piece.piece for piece in description.pieces], self._library))

    def encode(self, text: str) -> list[int]:
        """Ids of one text."""
        ids: list[int] = self._library.encode(text)
        return ids

    def encode_batch(self, texts: list[str], dtype: DTypeLike) -> list[NDArray[np.unsignedinteger]]:
        """Ids of each text, as arrays of ``dtype``."""
        return [np.array(ids, dtype=dtype) for ids in self._library.encode(texts)]

    def encode_ragged(self, texts: list[str], dtype: DTypeLike) -> tuple[NDArray[np.unsignedinteger], NDArray[np.int64]]:
        """Ids of all texts behind one another, and where each begins, as ``Tokenizer.encode_ragged`` gives them."""
        rows = self._library.encode(texts, num_threads=1)
        return np.fromiter(itertools.chain.from_iterable(rows), dtype), np.cumsum([0, *map(len, rows)], dtype=np.int64)

    def decode(self, ids: list[int]) -> str:
        """Text of ids, none of them special."""
        text: str = self._library.decode(ids)
        return text

    def files(self) -> dict[str, bytes]:
        """Name and contents of the file that holds the model, byte for byte as it was given."""
        return {SENTENCEPIECE_FILE: self._model}

    def __reduce__(self) -> tuple[type, tuple[bytes]]:
        return type(self), (self._model,)


def train_model(texts: Iterable[str], vocab_size: int) -> bytes:
    """Learn a SentencePiece unigram model with byte fallback, so that no text yields ``<unk>``; ids of special tokens are 0 to 4.

    The same texts in the same order give the same model. The library holds all texts in memory.

    Args:
        texts: what to learn from.
        vocab_size: number of pieces, special ones included; the model comes out smaller if the texts do not have so many.

    Returns:
        Contents of a ``.model`` file.

    Raises:
        BortError: if ``vocab_size`` is out of range, or too small for the characters of the texts.
    """
    check_vocab_size(vocab_size)
    bos, pad, eos, unk, mask = Vocab.special_tokens
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            vocab_size=vocab_size,
            model_type="unigram",
            byte_fallback=True,
            bos_piece=bos,
            pad_piece=pad,
            eos_piece=eos,
            unk_piece=unk,
            control_symbols=[mask],
            bos_id=0,
            pad_id=1,
            eos_id=2,
            unk_id=3,
            hard_vocab_limit=False,
            max_sentence_length=1 << 30,  # the default would leave out longer lines without a word
            num_threads=_THREADS,
            minloglevel=2,
        )
    except RuntimeError as error:
        reason = str(error).rpartition("] ")[2].strip() or "it found no text"
        raise BortError(f"SentencePiece cannot train {vocab_size} pieces on these texts; it says: {' '.join(reason.split())}") from None
    return model.getvalue()


def _tokens(pieces: list[str], library: sentencepiece.SentencePieceProcessor) -> tuple[str, ...]:
    declared = {
        Vocab.unk_token: library.unk_id(),
        Vocab.bos_token: library.bos_id(),
        Vocab.eos_token: library.eos_id(),
        Vocab.pad_token: library.pad_id(),
    }
    for token, position in declared.items():
        if position >= 0:
            pieces[position] = token
    return (*pieces, *(token for token in Vocab.special_tokens if token not in pieces))
