"""Turn raw text into pre-training data.

The text has one sentence per line and a blank line between documents, unless --documents says otherwise.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from pathlib import Path

from bort.cli.options import add_settings, add_vocabulary_options, get_settings
from bort.errors import BortError, on_one_line
from bort.settings import DOCUMENT_FORMS, NpzSettings, ShardSettings

HELP = "raw text to pre-training shards"
_INPUT_HELP = "text files (plain, .gz or .zst), patterns or folders; a comma separates several"
_OUTPUT_HELP = "folder for the data; the same command resumes an interrupted run"
_FORMAT_HELP = "shards, which pre-training masks anew in every epoch; or npz, the published arrays, whose masks are fixed"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("--input", nargs="+", required=True, metavar="TEXT", help=_INPUT_HELP)
    parser.add_argument("--output", required=True, metavar="DIR", help=_OUTPUT_HELP)
    parser.add_argument("--format", choices=("shards", "npz"), default="shards", help=_FORMAT_HELP)
    parser.add_argument("--num_workers", type=int, default=1, metavar="N", help="processes; the data does not depend on their number")
    add_vocabulary_options(parser)
    add_settings(parser, ShardSettings, {"documents": DOCUMENT_FORMS})
    add_settings(parser, NpzSettings)
    npz_options = ", ".join(f"--{field.name}" for field in dataclasses.fields(NpzSettings))
    parser.epilog = f"Only with --format npz: {npz_options}."


def run(arguments: argparse.Namespace) -> None:
    """Write the data and say what was read."""
    from bort.corpus.documents import counted, find_text_files
    from bort.corpus.npz_writing import create_npz
    from bort.corpus.shards import create_shards
    from bort.vocabulary_files import find_tokenizer

    if not arguments.output:
        raise BortError("--output is empty; give a folder for the data")
    settings, npz_settings = get_settings(ShardSettings, arguments), get_settings(NpzSettings, arguments)
    as_npz = arguments.format == "npz"
    if not as_npz and npz_settings != NpzSettings():
        raise BortError("options of masks need --format npz: shards hold no masks, bort pretrain draws them")
    files = find_text_files(arguments.input, ".jsonl" if settings.documents == "jsonl" else ".txt")
    tokenizer = find_tokenizer(arguments.vocab, arguments.dataset_name)
    output, num_workers = Path(arguments.output), arguments.num_workers
    begin = time.perf_counter()
    if as_npz:
        report = create_npz(files, tokenizer, output, settings, npz_settings, num_workers, show_progress=True)
        # Shards were a step on the way; a user sees the files that were made from them.
        report.empty_shards = 0
    else:
        report = create_shards(files, tokenizer, output, settings, num_workers, show_progress=True)
    seconds = time.perf_counter() - begin
    if report.kept_bytes:
        print(f"kept {counted(report.kept_shards, 'finished shard')}; {report.kept_bytes} of {report.text_bytes} bytes were done before")
    print(
        f"{counted(report.documents, 'document')}, {counted(report.sentences, 'sentence')} from {counted(len(files), 'file')} → "
        f"{counted(report.sequences, 'sequence')}, {counted(report.tokens, 'token')} in "
        f"{'.npz files' if as_npz else counted(settings.num_outputs, 'shard')} in {output}"
    )
    megabytes = (report.text_bytes - report.kept_bytes) / 1e6
    if megabytes:
        print(f"{megabytes:.1f} MB of text in {seconds:.1f} s: {megabytes / seconds:.1f} MB/s")
    for warning in report.warnings():
        print(f"bort: warning: {on_one_line(warning)}", file=sys.stderr)
