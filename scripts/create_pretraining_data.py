#!/usr/bin/env python3
"""Turns text into pre-training data, with the option names of the published script; `bort data` is the command behind it."""

from __future__ import annotations

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
from bort.cli.options import HelpFormatter
from bort.settings import ShardSettings

parser = OneLineParser(
    description=__doc__,
    epilog="Further options are those of bort data: --max_seq_length, --short_seq_prob, --num_outputs, --num_workers, --documents, and "
    "with --format npz, which stores masks, --dupe_factor, --masked_lm_prob, --max_predictions_per_seq and --whole_word_mask.",
    formatter_class=HelpFormatter,
    allow_abbrev=False,
)
parser.add_argument("--input_file", required=True, help="files, patterns or folders, separated by commas")
parser.add_argument("--output_dir", required=True, help="folder for the data")
parser.add_argument("--dataset_name", default="openwebtext_ccnews_stories_books_cased", help="name of a published vocabulary")
parser.add_argument("--vocab", metavar="DIR", help="folder of a vocabulary, in place of --dataset_name")
parser.add_argument("--random_seed", type=int, default=ShardSettings.seed, help="fixes everything that is drawn")
arguments, further = parser.parse_known_args()

vocabulary = ["--vocab", arguments.vocab] if arguments.vocab else ["--dataset_name", arguments.dataset_name]
seed = f"--seed={arguments.random_seed}"
sys.exit(main(["data", "--input", arguments.input_file, "--output", arguments.output_dir, *vocabulary, seed, *further]))
