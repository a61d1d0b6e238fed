"""Fine-tune a pre-trained Bort on a task, keep the best epoch, and write the task's leaderboard files."""

from __future__ import annotations

import argparse
from pathlib import Path

from bort.cli.options import add_settings, add_vocabulary_options, get_settings
from bort.settings import FinetuningSettings, OptimizerSettings

HELP = "one task: train, select, predict"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("--task", required=True, metavar="NAME", help="RTE, SST-2, STS-B, …")
    parser.add_argument("--data_root", metavar="DIR", help="folder with glue/ and superglue/; by default $MXNET_HOME/datasets")
    parser.add_argument("--model", required=True, metavar="NAME", help="a model folder; or an architecture, with --params and --vocab")
    parser.add_argument("--params", metavar="FILE", help="the encoder's parameters, where --model is no model folder")
    add_vocabulary_options(parser)
    parser.add_argument("--output_dir", required=True, metavar="DIR", help="run folder: best/, predictions/, metrics, curves")
    add_settings(parser, FinetuningSettings)
    add_settings(parser, OptimizerSettings)
    parser.add_argument("--gpu", action="store_true", help="train on the GPU of this worker's local rank")


def run(arguments: argparse.Namespace) -> None:
    """Train, and print the dev scores beside the majority class."""
    from bort.errors import BortError
    from bort.gluon.finetuning import build_engine
    from bort.model_directory import find_model, read_model_directory
    from bort.tasks import get_task
    from bort.training.finetune import BEST_FOLDER, finetune
    from bort.vocabulary_files import find_tokenizer

    settings = get_settings(FinetuningSettings, arguments)
    task = get_task(arguments.task, arguments.data_root)
    model = find_model(arguments.model, arguments.params)
    if model.parameters is None:
        raise BortError(f"--model {arguments.model} is no model folder; give one, or give --params FILE and --vocab DIR too")
    if arguments.params or arguments.vocab or arguments.dataset_name:
        tokenizer = find_tokenizer(arguments.vocab, arguments.dataset_name)
    else:
        tokenizer = read_model_directory(arguments.model).tokenizer()
    config = model.config
    if len(tokenizer.vocab) != config.vocab_size:
        raise BortError(f"the vocabulary has {len(tokenizer.vocab)} tokens, the model {config.vocab_size}; give the model's own --vocab")
    optimizer = get_settings(OptimizerSettings, arguments)
    engine = build_engine(
        config, task.num_classes, task.is_regression, settings.dropout, optimizer, settings.seed, model.parameters, use_gpu=arguments.gpu
    )
    output = Path(arguments.output_dir)
    result = finetune(engine, config, tokenizer, task, output, settings)
    if engine.rank == 0:
        for segment, metrics in result.dev.items():
            for name, value in metrics.items():
                print(f"{task.name} {segment} {name} {value:.4f} (majority {result.majority[segment][name]:.4f})")
        print(f"best epoch {result.best_epoch}, classifier in {output / BEST_FOLDER}")
        for file in result.files:
            print(f"predictions in {file}")
        if not result.files:
            print(f"no complete test files of {task.name} here, so no predictions")
