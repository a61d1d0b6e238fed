"""Write a model in the form that others load.

huggingface: config.json, safetensors and a tokenizer, for AutoModelForMaskedLM or AutoModelForSequenceClassification and AutoTokenizer.
onnx: a folder for ONNX Runtime or OpenVINO, which bort predict --exported and bort.ExportedModel take. With --int8 several INT8 models are
made and measured, next to the float32 model, and the fastest of those that lose no more than --max_loss points on the task of --check is
written. It may be one for OpenVINO.
gluon: a model folder of ours, from a folder of Transformers.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from bort.cli.options import add_vocabulary_options, given_options
from bort.errors import BortError

if TYPE_CHECKING:
    from bort.export.source import Source

HELP = "a model for Hugging Face Transformers, ONNX Runtime and OpenVINO, also in INT8"
_MODEL_HELP = (
    "model folder, pre-trained or fine-tuned, or an architecture with --params; with gluon, a folder of Transformers that this verb wrote"
)
_OF_INT8 = ("check", "max_loss", "calibrate", "runtime", "reduced_range", "data_root")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("--format", required=True, choices=("huggingface", "onnx", "gluon"), help="what to write")
    parser.add_argument("--model", required=True, metavar="NAME", help=_MODEL_HELP)
    parser.add_argument("--params", metavar="FILE", help="parameters of an architecture, such as the published bort.params")
    add_vocabulary_options(parser)
    parser.add_argument("--output", required=True, metavar="DIR", help="folder to write, which must not exist")
    int8 = parser.add_argument_group("INT8")
    int8.add_argument("--int8", action="store_true", help="with onnx: quantise the model")
    int8.add_argument(
        "--check", metavar="TASK", help="task whose dev rows tell what a classifier loses by it; without it nothing is checked"
    )
    int8.add_argument("--max_loss", type=float, default=0.5, metavar="X", help="points, of 100, that the score may fall below float32's")
    int8.add_argument(
        "--calibrate",
        metavar="FILE",
        help="texts to calibrate with, one a line; for a classifier rows as bort predict --input takes them, by default training rows of "
        "its own task",
    )
    int8.add_argument("--runtime", choices=("auto", "onnxruntime", "openvino"), default="auto", help="auto: whichever is faster here")
    int8.add_argument(
        "--reduced_range",
        choices=("auto", "yes", "no"),
        default="auto",
        help="weights of 7 bits, which CPUs without VNNI need, at some cost in precision; auto: if this CPU has none",
    )
    int8.add_argument("--data_root", metavar="DIR", help="folder with glue/, superglue/ and race/; by default $MXNET_HOME/datasets")


def run(arguments: argparse.Namespace) -> None:
    """Write the folder, and say what it is."""
    output, given = Path(arguments.output), given_options(arguments)
    if output.exists():
        raise BortError(f"{output}: there already; give another --output, or remove it")
    if arguments.int8 and arguments.format != "onnx":
        raise BortError("--int8 goes with --format onnx")
    for name in _OF_INT8 if not arguments.int8 else ():
        if name in given:
            raise BortError(f"--{name} says nothing without --int8; leave it out")
    if arguments.format == "gluon":
        print(f"{output}: {_write_gluon(arguments, output)}")
    elif arguments.format == "huggingface":
        print(f"{output}: {_write_hugging_face(arguments, output)}")
    else:
        print(f"{output}: {_write_onnx(arguments, output)}")


def _write_gluon(arguments: argparse.Namespace, output: Path) -> str:
    if arguments.params or arguments.vocab or arguments.dataset_name:
        raise BortError("--params, --vocab and --dataset_name go with --format huggingface and onnx; a folder of Transformers has its own")
    from bort.export.hugging_face import convert_to_gluon

    convert_to_gluon(arguments.model, output)
    return "a model folder"


def _write_hugging_face(arguments: argparse.Namespace, output: Path) -> str:
    """Write the folder; returns the class of Transformers that it is."""
    from bort.export.hugging_face import write_hugging_face

    source = _read_source(arguments)
    return write_hugging_face(output, source.config, source.parameters, source.tokenizer, source.task, source.labels)


def _write_onnx(arguments: argparse.Namespace, output: Path) -> str:
    """Write the folder; returns what kind of model it is."""
    from bort.export.int8_dynamic import ONNX
    from bort.export.runtimes import import_extra

    onnx = import_extra("onnx", ONNX)
    from bort.export.exported_folder import MODEL_FILE, write_exported_folder
    from bort.export.hugging_face import label_fields
    from bort.export.onnx_graph import build_graph, kind_of

    source = _read_source(arguments)
    kind = kind_of(source.parameters)
    if arguments.int8:
        from bort.cli.int8_trial import find_trial, show
        from bort.export.int8 import write_int8

        report = write_int8(output, source, find_trial(arguments, source, kind))
        show(report)
        return f"{kind} in INT8, {report['written']}"
    names = label_fields(source.labels or source.task.labels).get("id2label") if source.task else None
    graph = build_graph(source.config, source.parameters, {"id2label": json.dumps(names)} if names else None)

    def place(folder: Path) -> None:
        onnx.save(graph, folder / MODEL_FILE)
        onnx.checker.check_model(folder / MODEL_FILE, full_check=True)

    write_exported_folder(output, place, source.config, kind, source.tokenizer, source.task, source.labels)
    return f"{kind} in float32"


def _read_source(arguments: argparse.Namespace) -> Source:
    from bort.cli.starting_point import check_vocabulary, find_own_tokenizer
    from bort.export.source import Source
    from bort.model_directory import PARAMETERS_FILE, find_model, read_model_directory
    from bort.tasks import get_task

    model = find_model(arguments.model, arguments.params)
    tokenizer = find_own_tokenizer(arguments, model)
    check_vocabulary(model, tokenizer)
    is_ours = model.folder is not None and arguments.params is None and (model.folder / PARAMETERS_FILE).is_file()
    task = read_model_directory(arguments.model).task if is_ours else None
    parameters = model.read_parameters()
    if task is None and any(name.startswith("classifier.") for name in parameters):
        raise BortError(f"{model.parameters}: a fine-tuned classifier, whose folder alone says for what; give that as --model")
    return Source(model.config, parameters, tokenizer, task, get_task(task.name).leaderboard_labels if task else ())
