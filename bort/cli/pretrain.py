"""Pre-train a Bort on shards: masked language modelling, alone or together with distillation from a teacher.

Several workers: horovodrun -np N bort pretrain …
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from pathlib import Path

from bort.cli.options import add_settings, add_vocabulary_options, get_settings
from bort.config import ARCHITECTURES
from bort.settings import KD_LOSSES, DistillationSettings, OptimizerSettings, PretrainingSettings, RunSettings

HELP = "masked-language-model and distillation pre-training"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("--data", required=True, metavar="DIR", help="folder of training shards")
    parser.add_argument("--data_eval", metavar="DIR", help="folder of held-out shards")
    parser.add_argument(
        "--output_dir", required=True, metavar="DIR", help="run folder: checkpoints, metrics, curves, and model/ at the end"
    )
    add_vocabulary_options(parser)
    architectures = ", ".join(ARCHITECTURES)
    parser.add_argument(
        "--model", default="bort_4_8_768_1024", metavar="NAME", help=f"student: {architectures}, a config.json, or a model folder"
    )
    parser.add_argument(
        "--params", metavar="FILE", help="parameters to start from; without them and without a model folder the student starts at random"
    )
    parser.add_argument(
        "--teacher_model", default="roberta_24_1024_16", metavar="NAME", help="teacher: an architecture, a model folder, or none"
    )
    parser.add_argument("--teacher_params", metavar="FILE", help="the teacher's parameters, where --teacher_model is no model folder")
    add_settings(parser, DistillationSettings, choices={"kd_loss": KD_LOSSES})
    add_settings(parser, PretrainingSettings)
    add_settings(parser, OptimizerSettings)
    add_settings(parser, RunSettings)
    parser.add_argument("--gpu", action="store_true", help="train on the GPU of this worker's local rank")


def run(arguments: argparse.Namespace) -> None:
    """Train, and say where the model is."""
    from bort.corpus.shards import Corpus
    from bort.errors import BortError
    from bort.gluon.pretraining import build_engine
    from bort.model_directory import find_model
    from bort.training.pretrain import MODEL_FOLDER, pretrain
    from bort.vocabulary_files import find_tokenizer

    settings, run_settings = get_settings(PretrainingSettings, arguments), get_settings(RunSettings, arguments)
    tokenizer = find_tokenizer(arguments.vocab, arguments.dataset_name)
    corpus = Corpus(arguments.data, tokenizer.vocab.fingerprint)
    held_out = Corpus(arguments.data_eval, tokenizer.vocab.fingerprint) if arguments.data_eval else None
    loss, optimizer = get_settings(DistillationSettings, arguments), get_settings(OptimizerSettings, arguments)
    student = find_model(arguments.model, arguments.params)
    if student.parameters is None:
        student = replace(student, config=replace(student.config, vocab_size=len(tokenizer.vocab)))
    teacher = None if arguments.teacher_model == "none" else find_model(arguments.teacher_model, arguments.teacher_params)
    if teacher is not None and teacher.parameters is None:
        raise BortError(f"--teacher_model {teacher.name} needs --teacher_params FILE; or give a model folder, or --teacher_model none")
    longest = max(corpus.max_seq_length, held_out.max_seq_length if held_out else 0)
    engine = build_engine(student, teacher, loss, optimizer, settings.seed, len(tokenizer.vocab), longest, arguments.gpu)
    more = {"student_parameters": student.fingerprint(), "teacher_parameters": teacher.fingerprint() if teacher else None}
    more |= asdict(loss) | asdict(optimizer)
    output = Path(arguments.output_dir)
    evaluation = pretrain(engine, student.config, tokenizer, corpus, held_out, output, settings, run_settings, more)
    if engine.rank == 0:
        scores = "".join(f", held-out {name} {value:.4f}" for name, value in evaluation.items())
        print(f"model in {output / MODEL_FOLDER}{scores}")
