"""Label rows with a fine-tuned classifier: a task's test set into its leaderboard files, or rows of a file or standard input.

Rows are lines of tab-separated texts, one text for a single-sentence task and two for a pair; what comes out is one line a row, in order.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TextIO

from bort.errors import BortError
from bort.files import whole_file

if TYPE_CHECKING:
    from bort.engine import Predictor
    from bort.tasks import Task
    from bort.tokenizer import Tokenizer

HELP = "label rows with a fine-tuned checkpoint"

_ROWS_AT_ONCE = 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument(
        "--checkpoint", required=True, metavar="DIR", help="folder of a fine-tuned classifier: best/ of a run of bort finetune"
    )
    rows = parser.add_mutually_exclusive_group(required=True)
    rows.add_argument("--task", metavar="NAME", help="label this task's test set: the checkpoint's own, or a diagnostic set of it")
    rows.add_argument("--input", metavar="FILE", help="label these rows; - is standard input")
    parser.add_argument(
        "--output", metavar="PATH", help="with --task a folder (by default predictions), with --input a file (by default -)"
    )
    parser.add_argument("--data_root", metavar="DIR", help="folder with glue/ and superglue/; by default $MXNET_HOME/datasets")
    parser.add_argument("--batch_size", type=int, default=32, help="rows labelled at once")


def run(arguments: argparse.Namespace) -> None:
    """Write predictions, and with --task say where."""
    from bort.gluon.finetuning import load_predictor
    from bort.model_directory import read_model_directory
    from bort.tasks import get_task
    from bort.training.finetune import write_test_predictions

    if arguments.batch_size < 1:
        raise BortError(f"batch_size must be at least 1, got {arguments.batch_size}")
    model = read_model_directory(arguments.checkpoint)
    if model.task is None:
        raise BortError(f"{arguments.checkpoint}: a pre-trained model without a classifier; fine-tune it first: bort finetune --help")
    trained = get_task(model.task.name, arguments.data_root)
    if trained.labels != model.task.labels:
        raise BortError(f"{arguments.checkpoint}: its labels {model.task.labels} are not those of {trained.name}, {trained.labels}")
    tokenizer = model.tokenizer()
    predictor = load_predictor(model.config, trained.num_classes, model.parameters)
    max_len = model.task.max_len
    if arguments.task is not None:
        task = get_task(arguments.task, arguments.data_root)
        if trained.name not in (task.name, task.predicted_by):
            raise BortError(f"{arguments.checkpoint} was fine-tuned on {trained.name}; it cannot label {task.name}")
        test = {name: task.examples(name) for name in task.segment_names("test")}
        folder = Path(arguments.output or "predictions")
        for file in write_test_predictions(predictor, tokenizer, task, test, max_len, folder, arguments.batch_size):
            print(f"predictions in {file}")
        return
    _label_stream(arguments, predictor, tokenizer, trained, max_len)


def _label_stream(arguments: argparse.Namespace, predictor: Predictor, tokenizer: Tokenizer, task: Task, max_len: int) -> None:
    """Read, label and write a bounded number of rows at a time, so that memory does not grow with the input."""
    from bort.tasks import Example
    from bort.training.finetune import encode_rows, predict

    name = "standard input" if arguments.input == "-" else arguments.input
    with _reading(arguments.input) as lines, _writing(arguments.output or "-") as out:
        out.write("index\tprediction\n")
        numbered = _texts(lines, name, 2 if task.is_pair else 1)
        while chunk := list(islice(numbered, _ROWS_AT_ONCE)):
            examples = [Example(number, texts, None, number + 1) for number, texts in chunk]
            predictions = predict(predictor, task, encode_rows(examples, tokenizer, max_len), arguments.batch_size)
            for example, value in zip(examples, predictions, strict=True):
                out.write(f"{example.id}\t{f'{value:.3f}' if task.is_regression else task.leaderboard_labels[int(value)]}\n")


@contextmanager
def _reading(name: str) -> Iterator[BinaryIO]:
    if name == "-":
        yield sys.stdin.buffer
        return
    try:
        lines = open(name, "rb")  # noqa: SIM115 (closed below; only the failure to open is translated)
    except OSError as error:
        raise BortError(f"{name}: cannot read: {error.strerror}") from None
    with lines:
        yield lines


@contextmanager
def _writing(name: str) -> Iterator[TextIO]:
    if name == "-":
        yield sys.stdout
        return
    with whole_file(name) as partial, partial.open("w", encoding="utf-8") as out:
        yield out


def _texts(lines: BinaryIO, name: str, count: int) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Number, from 0, and texts of each line."""
    for number, line in enumerate(lines):
        try:
            texts = tuple(line.decode("utf-8").rstrip("\r\n").split("\t"))
        except UnicodeDecodeError as error:
            raise BortError(f"{name}, line {number + 1}: not UTF-8 at byte {error.start} of the line; convert the file first") from None
        if len(texts) != count:
            raise BortError(f"{name}, line {number + 1}: {len(texts)} tab-separated texts, the task has {count}")
        yield number, texts
