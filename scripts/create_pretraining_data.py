#!/usr/bin/env python3
"""Turns text into pre-training shards, with the option names of the published script; `bort data` is the command behind it.

Masks are drawn anew in every epoch of pre-training, so each sequence is stored once, whatever --dupe_factor says.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from pathlib import Path

if importlib.util.find_spec("bort") is None:
    # Called as in the README, without the environment being active.
    environment = Path(__file__).resolve().parent.parent / ".venv"
    if not (environment / "bin" / "python").exists() or Path(sys.prefix) == environment:
        sys.exit(f"create_pretraining_data: error: Bort is not installed in {environment}; run scripts/setup_env.sh first")
    os.execv(environment / "bin" / "python", [str(environment / "bin" / "python"), *sys.argv])

from bort.cli import OneLineParser, main
from bort.settings import ShardSettings

parser = OneLineParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
parser.add_argument("--input_file", required=True, help="files, patterns or folders, separated by commas")
parser.add_argument("--output_dir", required=True, help="folder for the shards")
parser.add_argument("--dataset_name", default="openwebtext_ccnews_stories_books_cased", help="name of a published vocabulary")
parser.add_argument("--vocab", help="folder of a vocabulary, in place of --dataset_name")
parser.add_argument("--dupe_factor", type=int, default=1, help="accepted; masking is dynamic, so nothing is stored twice")
parser.add_argument("--num_outputs", type=int, default=ShardSettings.num_outputs, help="number of shards")
parser.add_argument("--max_seq_length", type=int, default=ShardSettings.max_seq_length, help="longest sequence")
parser.add_argument("--short_seq_prob", type=float, default=ShardSettings.short_seq_prob, help="share of sequences cut short")
arguments = parser.parse_args()

if arguments.dupe_factor != 1:
    print("create_pretraining_data: masks are drawn anew in every epoch, so --dupe_factor stores nothing twice", file=sys.stderr)
vocabulary = ["--vocab", arguments.vocab] if arguments.vocab else ["--dataset_name", arguments.dataset_name]
sys.exit(
    main(
        ["data", "--input", arguments.input_file, "--output", arguments.output_dir, *vocabulary]
        + [f"--{name}={getattr(arguments, name)}" for name in ("num_outputs", "max_seq_length", "short_seq_prob")]
    )
)
