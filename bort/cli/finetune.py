"""Fine-tune a pre-trained Bort on a task, keep the best epoch, and write the task's leaderboard files.

Several workers: horovodrun -np N bort finetune …
The same command goes on where a run was interrupted, and does nothing where it is complete. What is not given comes from the task's recipe.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bort.cli import sweep
from bort.cli.options import add_settings, add_vocabulary_options, get_settings
from bort.config import BortConfig
from bort.errors import BortError
from bort.settings import DTYPES, HEAD_INITS, FinetuningRunSettings, FinetuningSettings, OptimizerSettings

if TYPE_CHECKING:
    import numpy as np

    from bort.model_directory import ModelSource
    from bort.tasks import Task
    from bort.tokenizer import Tokenizer

HELP = "one task: train, select, predict"

_RECIPE = ("epochs", "batch_size", "max_len", "lr", "warmup_ratio", "weight_decay", "early_stop")
_NO_PARAMETERS = "none"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("--task", "--task_name", dest="task", required=True, metavar="NAME", help="RTE, SST-2, STS-B, …: see bort tasks")
    parser.add_argument("--data_root", metavar="DIR", help="folder with glue/, superglue/ and race/; by default $MXNET_HOME/datasets")
    parser.add_argument("--download", action="store_true", help="fetch the task's official files where they are missing")
    encoder = parser.add_mutually_exclusive_group(required=True)
    encoder.add_argument(
        "--model", metavar="NAME", help="a model folder, ours or Hugging Face's; or an architecture or config.json, with --params"
    )
    encoder.add_argument(
        "--init_from", metavar="DIR", help="best/ of a run on another task: its encoder, and its classifier where the labels are the same"
    )
    parser.add_argument(
        "--params", "--pretrained_parameters", dest="params", metavar="FILE",
        help="the encoder's parameters, where --model is no model folder; none draws them at random",
    )  # fmt: skip
    add_vocabulary_options(parser)
    parser.add_argument(
        "--output_dir", required=True, metavar="DIR", help="run folder: best/, predictions/, metrics, curves, and at the end result.json"
    )
    add_settings(parser, FinetuningSettings, {"dtype": DTYPES, "init": HEAD_INITS}, later=_RECIPE, where="the task's recipe")
    add_settings(parser, OptimizerSettings, other_names={"adam_epsilon": "epsilon"}, later=_RECIPE, where="the task's recipe")
    add_settings(parser, FinetuningRunSettings)
    parser.add_argument("--cache_dir", metavar="DIR", help="where tokenised rows are kept, by default ~/.cache/bort/tasks; none keeps none")
    parser.add_argument("--gpu", action="store_true", help="train on the GPU of this worker's local rank")
    sweep.add_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Train, and print the dev scores beside the majority class; or run a sweep."""
    if sweep.is_wanted(arguments):
        sweep.run(arguments)
        return
    from bort.bench.report import describe_machine
    from bort.gluon.finetuning import build_engine
    from bort.tasks import diagnostic_tasks, get_task
    from bort.tasks.cache import default_cache
    from bort.tasks.recipes import recipe
    from bort.training.best import BEST_FOLDER
    from bort.training.finetune import finetune

    task = get_task(arguments.task, arguments.data_root)
    if not task.segment_names("train"):
        raise BortError(
            f"{task.name} has no training rows; its test set is labelled by a model of {task.predicted_by}: bort predict --help"
        )
    recommended = asdict(recipe(task.name))
    settings = get_settings(FinetuningSettings, arguments, recommended)
    optimizer = get_settings(OptimizerSettings, arguments, recommended)
    run_settings = get_settings(FinetuningRunSettings, arguments)
    start = find_start(arguments, task)
    notes, positions = start.notes, start.config.max_position_embeddings
    if settings.max_len > positions:
        if arguments.max_len is not None:
            raise BortError(f"--max_len {settings.max_len}: the encoder {start.name} has {positions} positions; give at most so many")
        notes += (f"max_len: {positions}, as the encoder has no more positions; the recipe has {settings.max_len}",)
        settings = replace(settings, max_len=positions)
    if arguments.download:
        download_rows(task)
    engine = build_engine(
        start.config, task.num_classes, task.is_regression, settings.dropout, optimizer, settings.seed, start.encoder, start.head,
        use_gpu=arguments.gpu, dtype=settings.dtype, head_init=settings.init, head_scale=settings.prob,
    )  # fmt: skip
    output = Path(arguments.output_dir)
    cache = None if arguments.cache_dir == "none" else Path(arguments.cache_dir) if arguments.cache_dir else default_cache()
    machine = describe_machine(("numpy", "mxnet"))
    facts = {
        "command": ["bort", *sys.argv[1:]],
        "encoder": start.name,
        "versions": machine.pop("versions") | {"python": machine.pop("python")},
        "machine": machine | {"cpu_flags": " ".join(machine["cpu_flags"])},
    }
    more = asdict(optimizer) | {"encoder": start.fingerprint}
    result = finetune(engine, start.config, start.tokenizer, task, output, settings, run_settings, more, facts, notes, cache)
    if result is None:
        return
    best = output / BEST_FOLDER
    for segment, metrics in result.dev.items():
        for name, value in metrics.items():
            print(f"{task.name} {segment} {name} {value:.4f} (majority {result.majority[segment][name]:.4f})")
    print(f"best epoch {result.best_epoch} of {result.epochs}" + (f", classifier in {best}" if best.exists() else ""))
    for file in result.files:
        print(f"predictions in {output / file}")
    answered = {Path(file).name for file in result.files}
    for other in (task, *diagnostic_tasks(task)):
        for test in other.segments:
            if test.leaderboard_file and test.leaderboard_file not in answered and not other.is_present(test.name):
                print(f"no {test.leaderboard_file}, since {other.name}'s {test.file} is not in {other.folders[0]}/")


@dataclass(frozen=True)
class _Start:
    """What a classifier begins as.

    Attributes:
        name: what the user called the encoder.
        config: its sizes.
        encoder: its parameters under published names; None draws them at random.
        head: the classifier's own layers; None draws them.
        tokenizer: the encoder's.
        fingerprint: of the file of parameters; ``random`` without one.
        notes: what to say of it.
    """

    name: str
    config: BortConfig
    encoder: Mapping[str, np.ndarray] | None
    head: Mapping[str, np.ndarray] | None
    tokenizer: Tokenizer
    fingerprint: str
    notes: tuple[str, ...]


def find_start(arguments: argparse.Namespace, task: Task) -> _Start:
    """The encoder that the options name, its vocabulary, and the classifier's layers where they can be taken too."""
    from bort.model_directory import find_model

    if arguments.init_from is not None:
        return _start_from_classifier(arguments, task)
    is_random = arguments.params == _NO_PARAMETERS
    model = find_model(arguments.model, None if is_random else arguments.params)
    if is_random:
        model = replace(model, parameters=None)
    elif model.parameters is None:
        raise BortError(
            f"--model {arguments.model} is no model folder; give one, or give --params FILE and --vocab DIR too, or --params none for an "
            "encoder at random"
        )
    tokenizer = _tokenizer(arguments, model)
    if is_random and model.folder is None:
        model = replace(model, config=replace(model.config, vocab_size=len(tokenizer.vocab)))
    _check_vocabulary(model, tokenizer)
    encoder = None if is_random else model.read_parameters()
    if encoder is not None and any(name.startswith("classifier.") for name in encoder):
        raise BortError(f"{model.parameters}: a fine-tuned classifier; give its folder as --init_from, in place of --model")
    spoken = "random" if is_random else model.name
    layers = f"{model.config.num_hidden_layers} layers of hidden size {model.config.hidden_size}"
    notes = (f"encoder: {spoken}, {layers}, on the {'GPU' if arguments.gpu else 'CPU'}", f"classifier: new, {arguments.init}")
    return _Start(spoken, model.config, encoder, None, tokenizer, model.fingerprint() or spoken, notes)


def _start_from_classifier(arguments: argparse.Namespace, task: Task) -> _Start:
    """The encoder of another task's classifier, and its own layers where they mean the same."""
    from bort.model_directory import find_model, read_model_directory

    if arguments.params is not None:
        raise BortError("--params goes with --model; a folder given as --init_from has its own")
    other = read_model_directory(arguments.init_from)
    if other.task is None:
        raise BortError(f"{arguments.init_from}: a pre-trained model without a classifier; give it as --model, in place of --init_from")
    model = find_model(arguments.init_from)
    tokenizer = _tokenizer(arguments, model)
    _check_vocabulary(model, tokenizer)
    parameters = model.read_parameters()
    encoder = {name.removeprefix("bort."): array for name, array in parameters.items() if name.startswith("bort.")}
    head = {name: array for name, array in parameters.items() if name.startswith("classifier.")}
    takes_head = _typed(other.task.labels) == _typed(task.labels)
    if takes_head and (arguments.init, arguments.prob) != (FinetuningSettings.init, FinetuningSettings.prob):
        raise BortError(
            f"--init and --prob draw a new classifier, but that of {other.task.name} is taken over, since its labels are the same; "
            "leave them out"
        )
    why = "its labels are the same" if takes_head else f"{task.name} has other labels"
    notes = (
        f"encoder: {model.name}, fine-tuned on {other.task.name}, on the {'GPU' if arguments.gpu else 'CPU'}",
        f"classifier: {f'that of {other.task.name}' if takes_head else f'new, {arguments.init}'}, since {why}",
    )
    return _Start(model.name, model.config, encoder, head if takes_head else None, tokenizer, str(model.fingerprint()), notes)


def _typed(labels: tuple[str | int, ...] | None) -> list[tuple[type, str | int]] | None:
    """Labels that differ where JSON's do: false and 0 are equal in Python."""
    return None if labels is None else [(type(label), label) for label in labels]


def _tokenizer(arguments: argparse.Namespace, model: ModelSource) -> Tokenizer:
    """The tokenizer that the options name; else the model folder's own."""
    from bort.tokenizer import Tokenizer
    from bort.vocabulary_files import find_tokenizer

    if arguments.vocab or arguments.dataset_name or model.folder is None:
        return find_tokenizer(arguments.vocab, arguments.dataset_name)
    return Tokenizer.from_directory(model.folder)


def _check_vocabulary(model: ModelSource, tokenizer: Tokenizer) -> None:
    size = model.config.vocab_size
    if len(tokenizer.vocab) != size:
        raise BortError(f"the vocabulary has {len(tokenizer.vocab)} tokens, the model {size}; give the model's own --vocab")
    model.check_vocabulary("encoder", tokenizer.vocab, "leave out --vocab, or give the model's own")


def download_rows(task: Task) -> None:
    """Fetch what is missing of a task and of its diagnostic sets."""
    from bort.tasks import diagnostic_tasks
    from bort.tasks.download import download

    for wanted in (task, *diagnostic_tasks(task)):
        download(wanted)
