"""Train a vocabulary on your text, or convert one between the formats of Hugging Face and GluonNLP."""

from __future__ import annotations

import argparse
import itertools
import sys

from bort.cli.options import HelpFormatter

HELP = "train a byte-level BPE or SentencePiece vocabulary; convert between formats"
_MIN_FREQUENCY = 2  # as RoBERTa's vocabulary was trained


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb's two actions."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    train = actions.add_parser(
        "train",
        help="learn a vocabulary from text",
        description="Learn a vocabulary from text. Like RoBERTa's, it begins with <s>, <pad>, </s> and <unk>, ids 0 to 3.",
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    train.add_argument(
        "--input", nargs="+", required=True, metavar="TEXT", help="text files, patterns or folders; a comma separates several"
    )
    train.add_argument("--output", required=True, metavar="DIR", help="folder for the vocabulary; other verbs take it as --vocab")
    train.add_argument("--vocab_size", type=int, required=True, metavar="N", help="number of tokens, the five special ones included")
    train.add_argument(
        "--model_type", choices=("bpe", "sentencepiece"), default="bpe", help="byte-level BPE, or a SentencePiece unigram model"
    )
    train.add_argument(
        "--min_frequency", type=int, default=_MIN_FREQUENCY, metavar="N", help="how often a pair must occur to be merged; bpe only"
    )
    train.set_defaults(act=_train)
    convert = actions.add_parser(
        "convert",
        help="write a vocabulary in another format",
        description="Write a byte-level BPE as vocab.json and merges.txt, or as GluonNLP's .vocab and BPE rank file.",
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    convert.add_argument("--vocab", required=True, metavar="DIR", help="folder of the vocabulary, in either format")
    convert.add_argument("--output", required=True, metavar="DIR", help="folder for the converted files")
    convert.add_argument("--to", choices=("gluonnlp", "huggingface"), required=True, help="format to write")
    convert.set_defaults(act=_convert)


def run(arguments: argparse.Namespace) -> None:
    """Train or convert, and name the files written."""
    arguments.act(arguments)


def _train(arguments: argparse.Namespace) -> None:
    from bort.byte_pair import Gigatoken, train_merges
    from bort.corpus.documents import ReadingReport, counted, find_text_files, read_documents
    from bort.errors import BortError
    from bort.sentencepiece_model import SentencePiece, train_model
    from bort.tokenizer import Tokenizer

    _refuse_second_vocabulary(arguments.output)
    if arguments.model_type != "bpe" and arguments.min_frequency != _MIN_FREQUENCY:
        raise BortError("--min_frequency is an option of byte-level BPE only; leave it out, or give --model_type bpe")
    files = find_text_files(arguments.input)
    report = ReadingReport()
    texts = itertools.chain.from_iterable(read_documents(files, report))
    first = next(texts, None)
    if first is None:
        raise BortError(f"no text in {', '.join(map(str, files))}; give files with one sentence per line")
    texts = itertools.chain([first], texts)
    if arguments.model_type == "bpe":
        tokenizer = Tokenizer(Gigatoken(*train_merges(texts, arguments.vocab_size, arguments.min_frequency, sys.stderr.isatty())))
    else:
        tokenizer = Tokenizer(SentencePiece(train_model(texts, arguments.vocab_size)))
    tokenizer.save(arguments.output)
    read = f"{counted(report.sentences, 'sentence')} from {counted(len(files), 'file')}"
    print(f"{read} → {len(tokenizer.vocab)} tokens in {arguments.output}")
    if report.undecodable_lines:
        undecodable = counted(report.undecodable_lines, "line")
        print(f"bort: warning: {undecodable} not in UTF-8; bytes that could not be decoded became U+FFFD", file=sys.stderr)
    if len(tokenizer.vocab) < arguments.vocab_size:
        remedy = "more text, or a smaller --min_frequency" if tokenizer.merges else "more text"
        print(f"bort: warning: the text has no more tokens to learn; for {arguments.vocab_size} give {remedy}", file=sys.stderr)


def _convert(arguments: argparse.Namespace) -> None:
    from bort.errors import BortError
    from bort.tokenizer import Tokenizer

    _refuse_second_vocabulary(arguments.output)
    tokenizer = Tokenizer.from_directory(arguments.vocab)
    if tokenizer.merges is None:
        raise BortError(f"{arguments.vocab}: a SentencePiece model has no merges to convert; give a byte-level BPE vocabulary")
    files = tokenizer.save_gluonnlp(arguments.output) if arguments.to == "gluonnlp" else tokenizer.save(arguments.output)
    print(f"{len(tokenizer.vocab)} tokens → {', '.join(map(str, files))}")


def _refuse_second_vocabulary(directory: str) -> None:
    """A folder with two vocabularies would be of no use, and the one that is there may be needed."""
    from bort.errors import BortError
    from bort.tokenizer import locate_files

    present = locate_files(directory)
    if present:
        raise BortError(f"{present[0]}: a vocabulary is there already; give another --output, or remove it")
