"""Pre-train a Bort on shards or .npz files: masked language modelling, alone or together with distillation from a teacher.

On several workers: horovodrun -np N bort pretrain …

The same command resumes an interrupted run, on any number of workers with the same global batch.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bort.cli.options import add_settings, add_vocabulary_options, get_settings
from bort.config import ARCHITECTURES, BortConfig
from bort.errors import BortError
from bort.settings import DTYPES, KD_LOSSES, DistillationSettings, OptimizerSettings, PretrainingSettings, RunSettings

if TYPE_CHECKING:
    from bort.corpus.npz import StaticSequences
    from bort.corpus.sequences import DynamicSequences
    from bort.tokenizer import Tokenizer

HELP = "masked-language-model and distillation pre-training"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    data = parser.add_argument_group("data")
    data.add_argument(
        "--data", required=True, metavar="DIR", help="training data: a folder of shards, or of .npz files, which keep the masks they have"
    )
    data.add_argument("--data_eval", metavar="DIR", help="held-out data, likewise")
    data.add_argument(
        "--allow_pickle", action="store_true", help="read .npz files with pickled arrays, as the published script wrote them; slow"
    )
    add_vocabulary_options(data)
    models = parser.add_argument_group("student and teacher")
    architectures = ", ".join(ARCHITECTURES)
    models.add_argument(
        "--model", default="bort_4_8_768_1024", metavar="NAME", help=f"student: {architectures}, a config.json, or a model folder"
    )
    models.add_argument(
        "--params", metavar="FILE", help="the student's parameters to start from; by default those of its model folder, else random ones"
    )
    models.add_argument(
        "--teacher_model",
        default="roberta_24_1024_16",
        metavar="NAME",
        help="teacher: an architecture, a model folder, a Hugging Face RoBERTa's folder, or the word none",
    )
    models.add_argument("--teacher_params", metavar="FILE", help="the teacher's parameters, where --teacher_model is not a folder")
    add_settings(models, DistillationSettings, choices={"kd_loss": KD_LOSSES})
    training = parser.add_argument_group("training")
    add_settings(training, PretrainingSettings, choices={"dtype": DTYPES})
    add_settings(training, OptimizerSettings)
    training.add_argument("--gpu", action="store_true", help="compute on a GPU, that of the worker's local rank")
    output = parser.add_argument_group("output and checkpoints")
    output.add_argument(
        "--output_dir", required=True, metavar="DIR", help="run folder: checkpoints, metrics, curves, best/, and model/ at the end"
    )
    add_settings(output, RunSettings)


def run(arguments: argparse.Namespace) -> None:
    """Train, and say where the model is."""
    from bort.gluon.pretraining import build_engine
    from bort.model_directory import find_model
    from bort.training.pretrain import MODEL_FOLDER, pretrain
    from bort.vocabulary_files import find_tokenizer

    settings, run_settings = get_settings(PretrainingSettings, arguments), get_settings(RunSettings, arguments)
    loss, optimizer = get_settings(DistillationSettings, arguments), get_settings(OptimizerSettings, arguments)
    tokenizer = find_tokenizer(arguments.vocab, arguments.dataset_name)
    facts = {"command": ["bort", *arguments.words], "teacher": None if arguments.teacher_model == "none" else arguments.teacher_model}
    sequences, facts["data"] = _open_sequences(arguments.data, tokenizer, settings, arguments.allow_pickle)
    held_out = None
    if arguments.data_eval:
        held_out, facts["held_out"] = _open_sequences(arguments.data_eval, tokenizer, settings, arguments.allow_pickle)
    student = find_model(arguments.model, arguments.params)
    if student.parameters is None:
        student = replace(student, config=replace(student.config, vocab_size=len(tokenizer.vocab)))
    teacher = None if arguments.teacher_model == "none" else find_model(arguments.teacher_model, arguments.teacher_params)
    if teacher is not None and teacher.parameters is None:
        raise BortError(f"--teacher_model {teacher.name} needs --teacher_params FILE; or give a model folder, or --teacher_model none")
    for role, source in (("student", student), ("teacher", teacher)):
        if source is not None:
            source.check_vocabulary(role, tokenizer.vocab)
    longest = max(sequences.max_seq_length, held_out.max_seq_length if held_out else 0)
    engine = build_engine(student, teacher, loss, optimizer, settings.seed, len(tokenizer.vocab), longest, arguments.gpu, settings.dtype)
    more: dict[str, Any] = {"student_parameters": student.fingerprint(), "teacher_parameters": teacher.fingerprint() if teacher else None}
    more["teacher_model"] = teacher.config.to_dict() if teacher else None
    more |= asdict(loss) | asdict(optimizer)
    output = Path(arguments.output_dir)
    notes = (
        f"student: {student.name}, {_sizes(student.config)}, on the {'GPU' if arguments.gpu else 'CPU'}",
        f"teacher: {f'{teacher.name}, {_sizes(teacher.config)}' if teacher else 'none'}",
        f"data: {len(sequences):,} sequences to learn from, {len(held_out) if held_out else 0:,} held out",
    )
    evaluation = pretrain(engine, student.config, tokenizer, sequences, held_out, output, settings, run_settings, more, facts, notes)
    if engine.rank == 0:
        scores = "".join(f", held-out {name} {value:.4f}" for name, value in evaluation.items())
        print(f"model in {output / MODEL_FOLDER}{scores}")


def _open_sequences(
    directory: str, tokenizer: Tokenizer, settings: PretrainingSettings, allow_pickle: bool
) -> tuple[DynamicSequences | StaticSequences, dict[str, Any]]:
    """The sequences of a folder and what they say of themselves: of shards masked as the settings say, of .npz files as they are."""
    from bort.corpus.masking import Masker
    from bort.corpus.npz import NPZ_PATTERN, StaticSequences
    from bort.corpus.sequences import DynamicSequences
    from bort.corpus.shards import SHARD_PATTERN, Corpus

    vocab = tokenizer.vocab
    has_npz = any(Path(directory).glob(NPZ_PATTERN))
    if has_npz and any(Path(directory).glob(SHARD_PATTERN)):
        raise BortError(f"{directory}: holds shards ({SHARD_PATTERN}) and {NPZ_PATTERN} files; move one of the sets to a folder of its own")
    if has_npz:
        sequences = StaticSequences(directory, len(vocab), allow_pickle, vocab.fingerprint)
        return sequences, sequences.description
    corpus = Corpus(directory, vocab.fingerprint)
    masker = Masker(vocab, settings.masked_lm_prob, settings.max_predictions_per_seq, settings.seed, settings.whole_word_mask)
    return DynamicSequences(corpus, vocab, masker), corpus.description


def _sizes(config: BortConfig) -> str:
    """Layers, width and number of parameters; the head's output projection is the word embedding and counts once."""
    hidden, inner = config.hidden_size, config.intermediate_size
    embeddings = (config.vocab_size + config.max_position_embeddings) * hidden + 2 * hidden
    layer = 4 * (hidden * hidden + hidden) + 2 * hidden * inner + inner + hidden + 4 * hidden
    head = hidden * hidden + 3 * hidden + config.vocab_size
    count = embeddings + config.num_hidden_layers * layer + head
    return f"{config.num_hidden_layers} layers of hidden size {hidden}, {count:,} parameters with the head"
