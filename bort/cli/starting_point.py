"""What a fine-tuning run begins with: task, settings, encoder, vocabulary and, where it can be taken over, the classifier's layers.

Notable: a single run and a sweep ask here, so a sweep refuses at once, in the same words, what every one of its runs would refuse.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from bort.cli.options import get_settings
from bort.config import BortConfig
from bort.errors import BortError
from bort.settings import FinetuningRunSettings, FinetuningSettings, OptimizerSettings

if TYPE_CHECKING:
    import numpy as np

    from bort.model_directory import ModelSource
    from bort.tasks import Task
    from bort.tokenizer import Tokenizer

_NO_PARAMETERS = "none"
_OF_A_NEW_HEAD = {"init", "prob"}


@dataclass(frozen=True)
class Start:
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


def find_task(arguments: argparse.Namespace) -> Task:
    """The task to train on.

    Raises:
        BortError: if there is none of that name, or it has no training rows.
    """
    from bort.tasks import get_task

    task = get_task(arguments.task, arguments.data_root)
    if not task.segment_names("train"):
        raise BortError(
            f"{task.name} has no training rows; its test set is labelled by a model of {task.predicted_by}: bort predict --help"
        )
    return task


def find_settings(arguments: argparse.Namespace, task: Task) -> tuple[FinetuningSettings, OptimizerSettings, FinetuningRunSettings]:
    """The settings that the options give, else the task's recipe.

    Raises:
        BortError: if one is out of range, or is not for this task or this device.
    """
    from bort.tasks.recipes import recipe

    recommended = asdict(recipe(task.name))
    settings = get_settings(FinetuningSettings, arguments, recommended)
    if settings.keep_question and task.benchmark != "RACE":
        raise BortError(f"--keep_question is for RACE, whose articles are followed by a question; {task.name} has none")
    if settings.dtype == "float16" and not arguments.gpu:
        raise BortError("--dtype float16 needs --gpu: MXNet has no half-precision matrix product for CPUs; leave --dtype out")
    return settings, get_settings(OptimizerSettings, arguments, recommended), get_settings(FinetuningRunSettings, arguments)


def fit_length(settings: FinetuningSettings, arguments: argparse.Namespace, start: Start) -> tuple[FinetuningSettings, tuple[str, ...]]:
    """Settings whose inputs are no longer than the encoder has positions, and what to say where the recipe's would be.

    Raises:
        BortError: if the option gives a longer input.
    """
    positions = start.config.max_position_embeddings
    if settings.max_len <= positions:
        return settings, ()
    if arguments.max_len is not None:
        raise BortError(f"--max_len {settings.max_len}: the encoder {start.name} has {positions} positions; give at most so many")
    note = f"max_len: {positions}, as the encoder has no more positions; the recipe has {settings.max_len}"
    return replace(settings, max_len=positions), (note,)


def find_start(arguments: argparse.Namespace, task: Task, given: Collection[str]) -> Start:
    """The encoder that the options name, its vocabulary, and the classifier's layers where they can be taken too.

    Args:
        given: names of the options that are given, by the command line or a grid.

    Raises:
        BortError: if a file is missing or damaged, the vocabulary is not the model's, or options contradict each other.
    """
    from bort.model_directory import find_model

    if arguments.init_from is not None:
        return _start_from_classifier(arguments, task, given)
    is_random = arguments.params == _NO_PARAMETERS
    model = find_model(arguments.model, None if is_random else arguments.params)
    if is_random:
        model = replace(model, parameters=None)
    elif model.parameters is None:
        raise BortError(
            f"--model {arguments.model} is no model folder; give one, or give --params FILE and --vocab DIR too, or --params none for an "
            "encoder at random"
        )
    tokenizer = find_own_tokenizer(arguments, model)
    if is_random and model.folder is None:
        model = replace(model, config=replace(model.config, vocab_size=len(tokenizer.vocab)))
    check_vocabulary(model, tokenizer)
    encoder = None if is_random else model.read_parameters()
    if encoder is not None and any(name.startswith("classifier.") for name in encoder):
        raise BortError(f"{model.parameters}: a fine-tuned classifier; give its folder as --init_from, in place of --model")
    spoken = "random" if is_random else model.name
    layers = f"{model.config.num_hidden_layers} layers of hidden size {model.config.hidden_size}"
    notes = (f"encoder: {spoken}, {layers}, on the {'GPU' if arguments.gpu else 'CPU'}", f"classifier: new, {arguments.init}")
    return Start(spoken, model.config, encoder, None, tokenizer, model.fingerprint() or spoken, notes)


def download_rows(task: Task) -> None:
    """Fetch what is missing of a task and of its diagnostic sets."""
    from bort.tasks import diagnostic_tasks
    from bort.tasks.download import download

    for wanted in (task, *diagnostic_tasks(task)):
        download(wanted)


def _start_from_classifier(arguments: argparse.Namespace, task: Task, given: Collection[str]) -> Start:
    """The encoder of another task's classifier, and its own layers where they mean the same."""
    from bort.model_directory import find_model, read_model_directory

    if arguments.params is not None:
        raise BortError("--params goes with --model; a folder given as --init_from has its own")
    other = read_model_directory(arguments.init_from)
    if other.task is None:
        raise BortError(f"{arguments.init_from}: a pre-trained model without a classifier; give it as --model, in place of --init_from")
    takes_head = _typed(other.task.labels) == _typed(task.labels)
    if takes_head and _OF_A_NEW_HEAD & set(given):
        raise BortError(
            f"--init and --prob draw a new classifier, but that of {other.task.name} is taken over, since its labels are the same; "
            "leave them out"
        )
    model = find_model(arguments.init_from)
    tokenizer = find_own_tokenizer(arguments, model)
    check_vocabulary(model, tokenizer)
    parameters = model.read_parameters()
    encoder = {name.removeprefix("bort."): array for name, array in parameters.items() if name.startswith("bort.")}
    head = {name: array for name, array in parameters.items() if name.startswith("classifier.")}
    why = "its labels are the same" if takes_head else f"{task.name} has other labels"
    notes = (
        f"encoder: {model.name}, fine-tuned on {other.task.name}, on the {'GPU' if arguments.gpu else 'CPU'}",
        f"classifier: {f'that of {other.task.name}' if takes_head else f'new, {arguments.init}'}, since {why}",
    )
    return Start(model.name, model.config, encoder, head if takes_head else None, tokenizer, str(model.fingerprint()), notes)


def _typed(labels: tuple[str | int, ...] | None) -> list[tuple[type, str | int]] | None:
    """Labels that differ where JSON's do: false and 0 are equal in Python."""
    return None if labels is None else [(type(label), label) for label in labels]


def find_own_tokenizer(arguments: argparse.Namespace, model: ModelSource) -> Tokenizer:
    """The tokenizer that the options name; else the model folder's own."""
    from bort.tokenizer import Tokenizer
    from bort.vocabulary_files import find_tokenizer

    if arguments.vocab or arguments.dataset_name or model.folder is None:
        return find_tokenizer(arguments.vocab, arguments.dataset_name)
    return Tokenizer.from_directory(model.folder)


def check_vocabulary(model: ModelSource, tokenizer: Tokenizer) -> None:
    """Refuse a tokenizer that is not the model's.

    Raises:
        BortError: if sizes differ, or a token of the model's own vocabulary has another id.
    """
    size = model.config.vocab_size
    if len(tokenizer.vocab) != size:
        raise BortError(f"the vocabulary has {len(tokenizer.vocab)} tokens, the model {size}; give the model's own --vocab")
    model.check_vocabulary("encoder", tokenizer.vocab, "leave out --vocab, or give the model's own")
