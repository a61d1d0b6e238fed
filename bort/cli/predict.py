"""Label rows with a fine-tuned classifier: a task's test set, into its leaderboard files, or the rows of a file or of standard input.

The classifier is a folder that bort finetune wrote, or one that bort export made of it to be fast on a CPU.

Rows are lines of tab-separated texts (one text for a single-sentence task, two for a pair) or JSON objects with text, or text1 and text2,
or the fields of the task's own files where each of their lines is one row.

One line per row comes out, in order, as soon as the row is labelled.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from bort.errors import BortError
from bort.files import whole_file

if TYPE_CHECKING:
    from bort.engine import Predictor
    from bort.model_directory import TrainedTask
    from bort.tasks import Task
    from bort.tokenizer import Tokenizer

HELP = "label rows with a fine-tuned classifier"

_FORMATS = ("tsv", "jsonl")
_ROLES = ("test", "dev", "train")
# Options that mean something for one of the two kinds of rows alone.
_OF_TASKS, _OF_INPUT = ("segment", "data_root"), ("format", "output_format", "probabilities")


@dataclass(frozen=True)
class _Classifier:
    """A classifier that is ready, whatever computes it.

    Attributes:
        folder: as the user named it.
        trained, task: what it was fine-tuned for, in its own words and in ours.
    """

    folder: str
    trained: TrainedTask
    task: Task
    tokenizer: Tokenizer
    predictor: Predictor


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--checkpoint", metavar="DIR", help="folder of a fine-tuned classifier: best/ of a run of bort finetune")
    model.add_argument("--exported", metavar="DIR", help="folder of a classifier that bort export --format onnx wrote")
    rows = parser.add_mutually_exclusive_group(required=True)
    rows.add_argument(
        "--task",
        metavar="NAME",
        help="label the test set of this task: the classifier's own, or a related one, such as AX with a model of MNLI",
    )
    rows.add_argument("--input", metavar="FILE", help="label the rows of this file; - is standard input")
    parser.add_argument(
        "--output", metavar="PATH", help="with --task a folder, by default predictions; with --input a file, by default - (standard output)"
    )
    parser.add_argument(
        "--segment", choices=_ROLES, help="with --task: the rows to label, by default test; dev and train are scored, not written"
    )
    parser.add_argument(
        "--data_root", metavar="DIR", help="with --task: folder with glue/, superglue/ and race/; by default $MXNET_HOME/datasets"
    )
    parser.add_argument("--format", choices=_FORMATS, help="format of --input; by default that of its file name, else of its first row")
    parser.add_argument("--output_format", choices=_FORMATS, help="format of the output; by default that of --input")
    parser.add_argument("--probabilities", action="store_true", default=None, help="with --input: write each label's probability too")
    parser.add_argument("--batch_size", type=int, default=32, metavar="N", help="rows per batch")
    parser.add_argument("--gpu", action="store_true", help="compute on a GPU")


def run(arguments: argparse.Namespace) -> None:
    """Write predictions, and with --task say where."""
    if arguments.batch_size < 1:
        raise BortError(f"batch_size must be at least 1, got {arguments.batch_size}")
    for name in _OF_TASKS if arguments.task is None else _OF_INPUT:
        if getattr(arguments, name) is not None:
            raise BortError(f"--{name} says nothing with {'--input' if arguments.task is None else '--task'}; leave it out")
    classifier = _load_exported(arguments) if arguments.exported else _load_checkpoint(arguments)
    if arguments.task is None:
        _label_stream(arguments, classifier)
    else:
        _label_task(arguments, classifier)


def _load_checkpoint(arguments: argparse.Namespace) -> _Classifier:
    from bort.gluon.finetuning import load_predictor
    from bort.model_directory import read_model_directory
    from bort.training.prediction import trained_task

    folder = arguments.checkpoint
    model = read_model_directory(folder)
    if model.task is None:
        raise BortError(f"{folder}: a pre-trained model without a classifier; fine-tune it first: bort finetune --help")
    task = trained_task(folder, model.task, arguments.data_root)
    tokenizer = model.tokenizer()
    predictor = load_predictor(model.config, task.num_classes, model.parameters, arguments.gpu)
    return _Classifier(folder, model.task, task, tokenizer, predictor)


def _load_exported(arguments: argparse.Namespace) -> _Classifier:
    from bort.export.exported_model import ExportedModel, ExportedPredictor
    from bort.training.prediction import trained_task

    folder = arguments.exported
    if arguments.gpu:
        raise BortError("--gpu says nothing with --exported, which computes on the CPU; leave it out")
    model = ExportedModel.from_directory(folder)
    trained = model.folder.task
    if trained is None:
        raise BortError(f"{folder}: an exported model without a classifier; export best/ of a run of bort finetune")
    return _Classifier(folder, trained, trained_task(folder, trained, arguments.data_root), model.tokenizer, ExportedPredictor(model))


def _label_task(arguments: argparse.Namespace, classifier: _Classifier) -> None:
    """Leaderboard files of a test set, and the scores of whatever has labels."""
    from bort.tasks import get_task
    from bort.tasks.registry import can_label
    from bort.training.prediction import score_segments, write_test_predictions

    task = get_task(arguments.task, arguments.data_root)
    if not can_label(classifier.task, task):
        raise BortError(
            f"{classifier.folder} was fine-tuned on {classifier.task.name}; it cannot label {task.name}; give another classifier"
        )
    role = arguments.segment or "test"
    names = task.segment_names(role)
    if not names:
        raise BortError(f"{task.name} has no {role} rows; it has {', '.join(segment.name for segment in task.segments)}")
    model = classifier.predictor, classifier.tokenizer, classifier.trained
    if role == "test":
        folder = Path(arguments.output or "predictions")
        written, scores = write_test_predictions(*model, task, names, folder, arguments.batch_size)
        for file in written:
            print(f"predictions in {file}")
    else:
        scores = score_segments(*model, task, names, arguments.batch_size)
    for segment, metrics in scores.items():
        for name, value in metrics.items():
            print(f"{task.name} {segment} {name} {value:.4f}")


def _label_stream(arguments: argparse.Namespace, classifier: _Classifier) -> None:
    """Read, label and write what has arrived, again and again, so that memory does not grow with the input."""
    from tqdm import tqdm

    from bort.tasks.row_stream import read_rows, row_format
    from bort.training.prediction import json_line, label_rows, table_header, table_line

    model, task = (classifier.predictor, classifier.tokenizer, classifier.trained), classifier.task
    name = "standard input" if arguments.input == "-" else arguments.input
    with _reading(arguments.input) as descriptor, _writing(arguments.output or "-") as out:
        size = os.fstat(descriptor).st_size or None
        # None: shown where standard error is a terminal. Beside output on the same terminal a bar would only disturb.
        hidden = True if out is sys.stdout and sys.stdout.isatty() else None
        with_probabilities = bool(arguments.probabilities)
        as_table = None
        with tqdm(total=size, desc="predict", unit="B", unit_scale=True, leave=False, disable=hidden) as bar:
            for input_format, rows, num_bytes in read_rows(descriptor, name, task, arguments.format or "auto"):
                if as_table is None:
                    as_table = (arguments.output_format or input_format) == "tsv"
                    out.write(table_header(task, with_probabilities) if as_table else "")
                line = table_line if as_table else json_line
                for row, outputs in label_rows(*model, task, rows, arguments.batch_size):
                    out.write(line(task, row, outputs, with_probabilities))
                out.flush()
                bar.update(num_bytes)
        # Without a row there is still a table.
        if as_table is None and (arguments.output_format or arguments.format or row_format(name, b"")) == "tsv":
            out.write(table_header(task, with_probabilities))


@contextmanager
def _reading(name: str) -> Iterator[int]:
    """A descriptor of the input."""
    if name == "-":
        if sys.stdin is None:
            raise BortError("standard input is closed; pipe rows into it, or give --input a file")
        yield sys.stdin.fileno()
        return
    try:
        file = open(name, "rb")  # noqa: SIM115 (closed below; only the failure to open is translated)
    except OSError as error:
        raise BortError(f"{name}: cannot read: {error.strerror}") from None
    with file:
        yield file.fileno()


@contextmanager
def _writing(name: str) -> Iterator[TextIO]:
    if name == "-":
        if isinstance(sys.stdout, io.TextIOWrapper):
            # Ids and labels are data, and are not to be changed to what a terminal can show.
            sys.stdout.reconfigure(encoding="utf-8")
        yield sys.stdout
        return
    with whole_file(name) as partial, partial.open("w", encoding="utf-8") as out:
        yield out
