"""Fine-tune a pre-trained encoder on a task, keep the best epoch, and write the task's leaderboard files.

On several workers: horovodrun -np N bort finetune …

The same command resumes an interrupted run, and does nothing where the run is complete. --seeds or --grid make a sweep of many runs.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from bort.cli import sweep
from bort.cli.options import add_settings, add_vocabulary_options, given_options
from bort.cli.starting_point import download_rows, find_settings, find_start, find_task, fit_length
from bort.settings import DTYPES, HEAD_INITS, FinetuningRunSettings, FinetuningSettings, OptimizerSettings

HELP = "fine-tune on a task, and predict its test set"

_RECIPE = ("epochs", "batch_size", "max_len", "lr", "warmup_ratio", "weight_decay", "early_stop")
_PARAMETERS_HELP = "the encoder's parameters, where --model is not a folder; the word none draws them at random"
_OUTPUT_HELP = "run folder: best/, predictions/, metrics, curves, and at the end result.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    data = parser.add_argument_group("data")
    data.add_argument("--task", "--task_name", dest="task", required=True, metavar="NAME", help="RTE, SST-2, STS-B, …: see bort tasks")
    data.add_argument("--data_root", metavar="DIR", help="folder with glue/, superglue/ and race/; by default $MXNET_HOME/datasets")
    data.add_argument("--download", action="store_true", help="fetch the task's official files where they are missing")
    data.add_argument(
        "--cache_dir", metavar="DIR", help="cache of tokenised rows, by default ~/.cache/bort/tasks; the word none keeps none"
    )
    encoder = parser.add_argument_group("encoder")
    source = encoder.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--model", metavar="NAME", help="a model folder, Bort's or Hugging Face's; or an architecture or config.json, with --params"
    )
    source.add_argument(
        "--init_from", metavar="DIR", help="best/ of a run on another task: its encoder, and its classifier where the labels are the same"
    )
    encoder.add_argument("--params", "--pretrained_parameters", dest="params", metavar="FILE", help=_PARAMETERS_HELP)
    add_vocabulary_options(encoder)
    training = parser.add_argument_group("training", "The task's recipe is in bort/tasks/recipes.yaml, with the reason for each value.")
    add_settings(training, FinetuningSettings, {"dtype": DTYPES, "init": HEAD_INITS}, later=_RECIPE, where="the task's recipe")
    add_settings(training, OptimizerSettings, other_names={"adam_epsilon": "epsilon"}, later=_RECIPE, where="the task's recipe")
    training.add_argument("--gpu", action="store_true", help="compute on a GPU, that of the worker's local rank")
    output = parser.add_argument_group("output and checkpoints")
    output.add_argument("--output_dir", required=True, metavar="DIR", help=_OUTPUT_HELP)
    add_settings(output, FinetuningRunSettings)
    sweep.add_arguments(parser.add_argument_group("sweep", "--seeds or --grid makes a sweep, whose runs are processes of their own."))


def run(arguments: argparse.Namespace) -> None:
    """Train, and print the dev scores beside the majority class; or run a sweep."""
    if sweep.is_wanted(arguments):
        sweep.run(arguments)
        return
    from bort.gluon.finetuning import build_engine
    from bort.machine import describe_machine
    from bort.tasks import diagnostic_tasks
    from bort.tasks.cache import default_cache
    from bort.training.best import BEST_FOLDER
    from bort.training.finetune import finetune

    task = find_task(arguments)
    settings, optimizer, run_settings = find_settings(arguments, task)
    start = find_start(arguments, task, given_options(arguments))
    settings, shortened = fit_length(settings, arguments, start)
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
        "command": ["bort", *arguments.words],
        "encoder": start.name,
        "versions": machine.pop("versions") | {"python": machine.pop("python")},
        "machine": machine | {"cpu_flags": " ".join(machine["cpu_flags"])},
    }
    more = asdict(optimizer) | {"encoder": start.fingerprint}
    result = finetune(
        engine, start.config, start.tokenizer, task, output, settings, run_settings, more, facts, start.notes + shortened, cache
    )
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
