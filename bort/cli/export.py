"""Write a model in the form that others load.

huggingface: config.json, safetensors and a tokenizer, for AutoModelForMaskedLM or AutoModelForSequenceClassification and AutoTokenizer.
gluon: a model folder of ours, from one of those.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bort.cli.options import add_vocabulary_options
from bort.errors import BortError

HELP = "a model for Hugging Face Transformers, and back"
_MODEL_HELP = "model folder, pre-trained or fine-tuned, or an architecture with --params; with gluon, a folder that this verb wrote"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("--format", required=True, choices=("huggingface", "gluon"), help="what to write")
    parser.add_argument("--model", required=True, metavar="NAME", help=_MODEL_HELP)
    parser.add_argument("--params", metavar="FILE", help="parameters of an architecture, such as the published bort.params")
    add_vocabulary_options(parser)
    parser.add_argument("--output", required=True, metavar="DIR", help="folder to write, which must not exist")


def run(arguments: argparse.Namespace) -> None:
    """Write the folder, and say what it is."""
    output = Path(arguments.output)
    if output.exists():
        raise BortError(f"{output}: there already; give another --output, or remove it")
    if arguments.format == "huggingface":
        print(f"{output}: {_write_hugging_face(arguments, output)}")
        return
    if arguments.params or arguments.vocab or arguments.dataset_name:
        raise BortError("--params, --vocab and --dataset_name go with --format huggingface; a folder of Transformers has its own")
    from bort.export.hugging_face import convert_to_gluon

    convert_to_gluon(arguments.model, output)
    print(f"{output}: a model folder")


def _write_hugging_face(arguments: argparse.Namespace, output: Path) -> str:
    """Write the folder; returns the class of Transformers that it is."""
    from bort.cli.starting_point import check_vocabulary, find_own_tokenizer
    from bort.export.hugging_face import write_hugging_face
    from bort.model_directory import PARAMETERS_FILE, find_model, read_model_directory
    from bort.tasks import get_task

    model = find_model(arguments.model, arguments.params)
    tokenizer = find_own_tokenizer(arguments, model)
    check_vocabulary(model, tokenizer)
    is_ours = model.folder is not None and arguments.params is None and (model.folder / PARAMETERS_FILE).is_file()
    task = read_model_directory(arguments.model).task if is_ours else None
    labels = get_task(task.name).leaderboard_labels if task else ()
    return write_hugging_face(output, model.config, model.read_parameters(), tokenizer, task, labels)
