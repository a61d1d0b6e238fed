"""Texts of an exact number of tokens, and vocabularies of the published sizes, so that tokenising can be timed as part of the work.

Notable: the words are made up, with Zipf's frequencies, since no text is at hand everywhere; vocabularies are trained on them, a WordPiece
as BERT's and a byte-level BPE as RoBERTa's and Bort's. Peers cut text with Hugging Face's ``tokenizers`` itself, without what Transformers
puts around it; Bort with its own tokenizer, whose ids are those of that library.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bort.bench.inference.cases import Batch, digest
from bort.errors import BortError

KINDS = ("wordpiece", "bpe")
LIBRARY_FILE, TEXTS_FILE = "tokenizer.json", "texts.json"
BATCHES = 8
"""Different batches of each shape, which take turns."""

_ONSETS = ["b", "c", "d", "f", "g", "h", "k", "l", "m", "n", "p", "r", "s", "t", "v", "w", "z", "ch", "sh", "st", "tr", "pl"]
_VOWELS = ["a", "e", "i", "o", "u", "ai", "ea", "ou"]
_CODAS = ["", "n", "r", "s", "t", "l"]
# Enough for the largest published vocabulary; a small one needs no more than it can tell apart.
_MOST_WORDS, _WORDS_PER_TOKEN = 60_000, 20
_MOST_FREQUENT = 20_000
# A token by itself in every vocabulary here, whatever stands before it.
_FILLER = "."


def make_texts(folder: Path, kind: str, vocab_size: int, shapes: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """Train a vocabulary and write texts for it.

    Args:
        folder: made; gets ``tokenizer.json``, for a BPE our two files too, and the texts.
        kind: one of :data:`KINDS`.
        shapes: (B, T); T counts the two special tokens.

    Returns:
        ``kind``, ``vocab_size`` as it came out, and ``tokens_per_word``.

    Raises:
        BortError: if a text does not come out at the right number of tokens.
    """
    words, counts = _make_words(min(_MOST_WORDS, _WORDS_PER_TOKEN * vocab_size))
    corpus = (" ".join([word] * count) + f" {_FILLER}" for word, count in zip(words, counts.tolist(), strict=True))
    folder.mkdir(parents=True)
    (_train_wordpiece if kind == "wordpiece" else _train_byte_pairs)(folder, vocab_size, corpus)
    encode = open_library(folder)
    draws = _draw(words, counts / counts.sum(), np.random.default_rng(vocab_size))
    texts, digests, num_words, num_tokens = {}, {}, 0, 0
    for size, length in shapes:
        batches = [[_make_text(draws, encode, length) for _ in range(size)] for _ in range(BATCHES)]
        encoded = [encode(batch) for batch in batches]
        if any(batch["input_ids"].shape != (size, length) for batch in encoded):
            raise BortError(f"verification failed: the {kind} does not make {size}x{length} tokens of its texts; nothing was timed")
        texts[f"{size}x{length}"], digests[f"{size}x{length}"] = batches, digest(encoded)
        num_words += sum(len(text.split()) for batch in batches for text in batch)
        num_tokens += BATCHES * size * (length - 2)
    (folder / TEXTS_FILE).write_text(json.dumps({"texts": texts, "digests": digests}), encoding="utf-8")
    return {"kind": kind, "vocab_size": _vocab_size(folder), "tokens_per_word": num_tokens / num_words}


def read_texts(folder: Path) -> tuple[dict[str, list[list[str]]], dict[str, str]]:
    """Batches of texts by shape, and the digests of the ids that they are."""
    stored = json.loads((folder / TEXTS_FILE).read_text(encoding="utf-8"))
    return stored["texts"], stored["digests"]


def open_library(folder: Path) -> Callable[[Sequence[str]], Batch]:
    """Cut texts of equal length as Hugging Face's library does, special tokens included."""
    import tokenizers

    library = tokenizers.Tokenizer.from_file(str(folder / LIBRARY_FILE))

    def encode(texts: Sequence[str]) -> Batch:
        encodings = library.encode_batch_fast(list(texts))
        return {
            "input_ids": np.array([encoding.ids for encoding in encodings], dtype=np.int64),
            "attention_mask": np.array([encoding.attention_mask for encoding in encodings], dtype=np.int64),
        }

    return encode


def open_own(folder: Path) -> Callable[[Sequence[str]], Batch]:
    """Cut texts of equal length by our tokenizer on the calling thread, as an exported model does."""
    from bort.tokenizer import Tokenizer

    tokenizer = Tokenizer.from_directory(folder)
    vocab = tokenizer.vocab

    def encode(texts: Sequence[str]) -> Batch:
        tokens, starts = tokenizer.encode_ragged(list(texts))
        ids = np.empty((len(texts), 2 + int(starts[1])), dtype=np.int64)
        ids[:, 0], ids[:, -1] = vocab.bos_id, vocab.eos_id
        ids[:, 1:-1] = tokens.reshape(len(texts), -1)
        return {"input_ids": ids, "attention_mask": np.ones_like(ids)}

    return encode


def _make_words(number: int) -> tuple[list[str], np.ndarray]:
    """Distinct words of one to four syllables, and how often each occurs in the corpus."""
    syllables = [onset + vowel + coda for onset in _ONSETS for vowel in _VOWELS for coda in _CODAS]
    random = np.random.default_rng(0)
    chosen = random.integers(0, len(syllables), (2 * number, 4)).tolist()
    lengths = random.integers(1, 5, 2 * number).tolist()
    made = ("".join(syllables[number] for number in row[:length]) for row, length in zip(chosen, lengths, strict=True))
    words = list(dict.fromkeys(made))[:number]
    return words, np.maximum(2, _MOST_FREQUENT / (3 + np.arange(len(words)))).astype(np.int64)


def _train_wordpiece(folder: Path, vocab_size: int, corpus: Iterator[str]) -> None:
    """As BERT's uncased vocabularies: lower case, punctuation apart."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    library = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    library.normalizer = normalizers.BertNormalizer(lowercase=True)
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    library.train_from_iterator(corpus, trainers.WordPieceTrainer(vocab_size=vocab_size, special_tokens=special, show_progress=False))
    ids = [(token, library.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    library.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ids)
    library.save(str(folder / LIBRARY_FILE))


def _train_byte_pairs(folder: Path, vocab_size: int, corpus: Iterator[str]) -> None:
    from bort.byte_pair import Reference, train_merges
    from bort.export.hugging_face import tokenizer_files
    from bort.tokenizer import Tokenizer

    tokenizer = Tokenizer(Reference(*train_merges(corpus, vocab_size)))
    tokenizer.save(folder)
    (folder / LIBRARY_FILE).write_text(tokenizer_files(tokenizer, 512)[LIBRARY_FILE], encoding="utf-8")


def _vocab_size(folder: Path) -> int:
    fields: Mapping[str, Any] = json.loads((folder / LIBRARY_FILE).read_text(encoding="utf-8"))
    return len({*fields["model"]["vocab"], *(token["content"] for token in fields["added_tokens"])})


def _draw(words: Sequence[str], shares: np.ndarray, random: np.random.Generator) -> Iterator[str]:
    while True:
        yield from (words[number] for number in random.choice(len(words), 4096, p=shares).tolist())


def _make_text(draws: Iterator[str], encode: Callable[[Sequence[str]], Batch], length: int) -> str:
    """Words as long as there is room for them, then full stops: ``length`` tokens with the two special ones."""
    text, used = "", 2
    for word in draws:
        longer = f"{text} {word}".strip()
        needed = encode([longer])["input_ids"].shape[1]
        if needed > length:
            return text + _FILLER * (length - used)
        text, used = longer, needed
    raise AssertionError("words are drawn without end")
