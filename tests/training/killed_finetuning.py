"""Ends a real fine-tuning run, in processes of its own, before every file operation in turn, and lets the same command resume.

Arguments: the repository, a vocabulary's folder, an empty folder. Prints a line for each kill whose run did not end as one that was never
killed, and at last the number of kills. A program of its own, since it forks, which a process that has trained should not.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import shutil
import sys
from pathlib import Path

import bort.gluon  # isort: skip (first, for what MXNet needs of NumPy)
import mxnet as mx

import bort.training.journal
from bort import BortConfig
from bort.files import write_text
from bort.gluon.finetuning import build_engine
from bort.gluon.kernels import are_available
from bort.settings import FinetuningRunSettings, FinetuningSettings, OptimizerSettings
from bort.tasks import get_task
from bort.tokenizer import Tokenizer
from bort.training.finetune import finetune
from bort.training.journal import CURVES_FILE

OPERATIONS = ("rename", "replace", "unlink", "rmdir", "mkdir")
KILLED = 77


def train(repository: Path, vocabulary: Path, output: Path, resume: str) -> None:
    tokenizer, task = Tokenizer.from_directory(vocabulary), get_task("CB", repository / "test_data")
    config = BortConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=64,
        vocab_size=len(tokenizer.vocab),
    )  # fmt: skip
    settings = FinetuningSettings(epochs=3, batch_size=16, lr=3e-2, max_len=32, seed=3)
    engine = build_engine(config, task.num_classes, False, settings.dropout, OptimizerSettings(), settings.seed, None)
    finetune(engine, config, tokenizer, task, output, settings, FinetuningRunSettings(resume=resume, keep_last=0))


def in_child(before: int, *arguments: object) -> int:
    """Exit status of a training that is ended before its file operation number ``before``; 0 never ends it."""
    child = os.fork()
    if child == 0:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        left = [before]

        def ending(real):
            def operation(*words, **options):
                left[0] -= 1
                if left[0] == 0:
                    os._exit(KILLED)
                return real(*words, **options)

            return operation

        for name in OPERATIONS:
            setattr(os, name, ending(getattr(os, name)))
        os.fsync = lambda descriptor: None
        # Drawn at the end, it takes more time than all else.
        bort.training.journal.draw_curves = lambda run: write_text(run / CURVES_FILE, "")
        status = 1
        try:
            train(*arguments)
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def state(output: Path) -> dict[str, str]:
    """What a run leaves, by file: all but what a clock measured, TensorBoard's files, which a kill may split, and old checkpoints."""
    files = {}
    for path in sorted(output.rglob("*")):
        name = str(path.relative_to(output))
        if path.is_file() and not name.startswith(("tensorboard", "checkpoint_")) and path.name not in ("README.md", "curves.png"):
            content = path.read_bytes()
            if path.name == "result.json":
                content = json.dumps(json.loads(content) | {"seconds": 0}).encode()
            elif path.name == "metrics.jsonl":
                entries = [json.loads(line) for line in content.splitlines()]
                content = str([[entry.get(key) for key in ("step", "kind", "loss", "score")] for entry in entries]).encode()
            files[name] = hashlib.sha256(content).hexdigest()
    return files


def main(repository: Path, vocabulary: Path, folder: Path) -> None:
    straight, killed = folder / "straight", folder / "killed"
    if in_child(0, repository, vocabulary, straight, "auto") != 0:
        raise SystemExit("the run that is not killed fails")
    expected, kills = state(straight), 0
    # Over a complete run, where the old one is taken away first, and then a run in a folder of its own.
    for resume, stride, end in (("never", 5, 40), ("auto", 20, 70)):
        for before in range(3, end, stride):
            shutil.rmtree(killed, ignore_errors=True)
            if resume == "never":
                shutil.copytree(straight, killed)
            status = in_child(before, repository, vocabulary, killed, resume)
            if status != KILLED:
                print(f"{resume}, operation {before}: status {status}")
            kills += 1
            status = in_child(0, repository, vocabulary, killed, "auto")
            found = state(killed)
            if status != 0 or found != expected:
                different = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
                print(f"{resume}, operation {before}: resumes with status {status}, and then differs in {different}")
    print(f"{kills} kills")


if __name__ == "__main__":
    # Imported before the forks, so that none of them does it again.
    for module in ("matplotlib.backends.backend_agg", "matplotlib.figure", "sklearn.metrics", "scipy.stats"):
        importlib.import_module(module)
    sys.modules["torch"] = None
    importlib.import_module("tensorboardX")
    are_available(mx.cpu())
    main(*map(Path, sys.argv[1:]))
