"""Turn raw text into pre-training shards: one sentence a line, a blank line between documents."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bort.cli.options import add_settings, add_vocabulary_options, get_settings
from bort.settings import ShardSettings

HELP = "raw text to pre-training shards"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("--input", nargs="+", required=True, metavar="TEXT", help="files, patterns or folders; a comma separates several")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the shards")
    add_vocabulary_options(parser)
    add_settings(parser, ShardSettings)


def run(arguments: argparse.Namespace) -> None:
    """Write the shards and say what was read."""
    from bort.corpus.documents import find_text_files
    from bort.corpus.shards import create_shards
    from bort.vocabulary_files import find_tokenizer

    files = find_text_files(arguments.input)
    tokenizer = find_tokenizer(arguments.vocab, arguments.dataset_name)
    settings = get_settings(ShardSettings, arguments)
    report = create_shards(files, tokenizer, Path(arguments.output), settings)
    read = f"{report.documents} documents, {report.sentences} sentences from {len(files)} files"
    print(f"{read} → {settings.num_outputs} shards in {arguments.output}")
    if report.undecodable_lines:
        print(f"bort: warning: {report.undecodable_lines} lines were not UTF-8; their odd bytes became U+FFFD", file=sys.stderr)
