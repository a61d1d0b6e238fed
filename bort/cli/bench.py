"""Benchmarks. Those that time something verify it first; each prints a table and one line of JSON."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bort.cli.options import HelpFormatter, add_vocabulary_options

HELP = "benchmarks: data, pretrain, finetune, baseline, inference, soak"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of each benchmark."""
    benchmarks = parser.add_subparsers(dest="benchmark", metavar="BENCHMARK", required=True)
    for name, measures, add_options in (
        ("data", "speed from text files to shards on the disk, on one core and on several", _add_data),
        ("pretrain", "tokens per second of pre-training updates, and where the time goes; weights and text are random", _add_pretrain),
        ("finetune", "rows and tokens per second of fine-tuning and prediction, padding and memory; weights are random", _add_finetune),
        ("baseline", "dev scores of TF-IDF + logistic regression and of the majority class, for a model to beat", _add_baseline),
        ("inference", "latency, memory and size on a CPU of Bort and of models of published shapes, in every runtime", _add_inference),
        ("soak", "latency and memory of an exported model that several threads keep busy for minutes, and its answers", _add_soak),
    ):
        benchmark = benchmarks.add_parser(
            name, help=measures, description=f"Measure {measures}.", formatter_class=HelpFormatter, allow_abbrev=False
        )
        add_options(benchmark)
        benchmark.add_argument("--json", metavar="FILE", help="write the JSON line to this file as well")


def run(arguments: argparse.Namespace) -> None:
    """Run a benchmark, print its table and its JSON line, and write the line to ``--json``."""
    arguments.measure(arguments)


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--input", nargs="+", required=True, metavar="TEXT", help="text files, patterns or folders; a comma separates several"
    )
    add_vocabulary_options(parser)
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="runs with each number of workers")
    parser.add_argument(
        "--workers",
        type=int,
        nargs="+",
        default=[1, 2],
        metavar="N",
        help="numbers of workers to measure, each worker on a core of its own",
    )
    parser.add_argument("--num_outputs", type=int, default=4, metavar="N", help="number of shards")
    parser.add_argument("--copies", type=int, default=1, metavar="N", help="number of times that the text is read, to have more of it")
    parser.set_defaults(measure=_bench_data)


def _bench_data(arguments: argparse.Namespace) -> None:
    from bort.bench.data import Vocabulary, bench_data, print_report
    from bort.bench.report import write_json_line
    from bort.corpus.documents import find_text_files

    files = find_text_files(arguments.input)
    vocabulary = Vocabulary(arguments.vocab, arguments.dataset_name)
    workers = list(dict.fromkeys(arguments.workers))
    record = bench_data(files, vocabulary, arguments.repeats, workers, arguments.copies, arguments.num_outputs, sys.stderr.isatty())
    print_report(record)
    write_json_line(record, arguments.json)


def _add_pretrain(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="bort_4_8_768_1024", metavar="NAME", help="student: an architecture or a config.json")
    parser.add_argument("--teacher_model", default="roberta_12_768_12", metavar="NAME", help="teacher: likewise, or the word none")
    parser.add_argument(
        "--shapes", nargs="+", default=["8x128", "8x512"], metavar="BxT", help="sequences x tokens of a batch, one measurement per shape"
    )
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="measurements of each side, which take turns")
    parser.add_argument("--updates", type=int, default=4, metavar="N", help="updates per measurement")
    parser.add_argument(
        "--vs",
        choices=["torch"],
        help="measure Hugging Face's BertForMaskedLM under PyTorch too, in turns with the student without a teacher",
    )
    parser.set_defaults(measure=_bench_pretrain)


def _bench_pretrain(arguments: argparse.Namespace) -> None:
    from bort.bench.pretrain import Shape, bench_pretrain, print_report
    from bort.bench.report import write_json_line
    from bort.gluon.distributed import join_workers

    teacher = None if arguments.teacher_model == "none" else arguments.teacher_model
    shapes = [Shape.parse(text) for text in arguments.shapes]
    record = bench_pretrain(arguments.model, teacher, shapes, arguments.repeats, arguments.vs == "torch", arguments.updates)
    if join_workers().rank == 0:
        print_report(record)
        write_json_line(record, arguments.json)


def _add_finetune(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--task", nargs="+", default=["SST-2", "RTE"], metavar="NAME", help="tasks whose training rows to take")
    parser.add_argument("--data_root", metavar="DIR", help="folder with glue/, superglue/ and race/; by default $MXNET_HOME/datasets")
    parser.add_argument("--model", default="bort_4_8_768_1024", metavar="NAME", help="an architecture or a config.json")
    add_vocabulary_options(parser)
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="measurements of each side, which take turns")
    parser.add_argument("--updates", type=int, default=20, metavar="N", help="updates per measurement")
    parser.add_argument("--rows", type=int, default=256, metavar="N", help="rows per measurement of prediction")
    parser.add_argument(
        "--memory_rows", type=int, nargs="+", default=[], metavar="N", help="measure the memory of bort predict on files of N rows too"
    )
    parser.set_defaults(measure=_bench_finetune)


def _bench_finetune(arguments: argparse.Namespace) -> None:
    from bort.bench.finetune import Turns, bench_finetune, print_report
    from bort.bench.report import write_json_line
    from bort.tasks import get_task
    from bort.vocabulary_files import find_tokenizer

    turns = Turns(arguments.repeats, arguments.updates, arguments.rows)
    tasks = [get_task(name, arguments.data_root) for name in arguments.task]
    tokenizer = find_tokenizer(arguments.vocab, arguments.dataset_name)
    record = bench_finetune(tasks, arguments.model, tokenizer, turns, arguments.memory_rows)
    print_report(record)
    write_json_line(record, arguments.json)


def _add_baseline(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--task", nargs="+", required=True, metavar="NAME", help="RTE, SST-2, STS-B, …: see bort tasks")
    parser.add_argument("--data_root", metavar="DIR", help="folder with glue/, superglue/ and race/; by default $MXNET_HOME/datasets")
    parser.add_argument("--limit", type=int, metavar="N", help="fit to the first N training rows of each task only")
    parser.set_defaults(measure=_bench_baseline)


def _bench_baseline(arguments: argparse.Namespace) -> None:
    from bort.bench.baseline import bench_baseline, print_report
    from bort.bench.report import write_json_line
    from bort.tasks import get_task

    tasks = [get_task(name, arguments.data_root) for name in arguments.task]
    record = bench_baseline(tasks, arguments.limit, sys.stderr.isatty())
    print_report(record)
    write_json_line(record, arguments.json)


def _add_inference(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        default="bort_4_8_768_1024",
        metavar="NAME",
        help="Bort: an architecture, a config.json, or a model folder with its weights",
    )
    parser.add_argument("--rows", nargs="+", default=["*"], metavar="ROW", help="rows to measure, as bort/openvino/int8, or patterns")
    parser.add_argument(
        "--shapes", nargs="+", default=["1x32", "1x128", "8x128", "1x512"], metavar="BxT", help="sequences x tokens of a batch"
    )
    parser.add_argument("--repeats", type=int, default=7, metavar="N", help="rounds, in each of which every row has its turn")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of each row, on as many cores (default: all)")
    parser.add_argument("--report", metavar="DIR", help="folder to write: the record, the tables in Markdown and a plot; must not exist")
    parser.set_defaults(measure=_bench_inference)


def _bench_inference(arguments: argparse.Namespace) -> None:
    from bort.bench.inference.benchmark import bench_inference
    from bort.bench.inference.report import check_report_folder, print_report, write_report
    from bort.bench.inference.rows import choose_rows
    from bort.bench.pretrain import Shape
    from bort.bench.report import write_json_line
    from bort.machine import num_threads

    rows, shapes = choose_rows(arguments.rows), [Shape.parse(text) for text in arguments.shapes]
    if arguments.report is not None:
        check_report_folder(Path(arguments.report))
    threads = num_threads() if arguments.threads is None else arguments.threads
    record = bench_inference(arguments.model, rows, shapes, arguments.repeats, threads, sys.stderr.isatty())
    print_report(record)
    if arguments.report is not None:
        write_report(Path(arguments.report), record)
    write_json_line(record, arguments.json)


def _add_soak(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--exported", required=True, metavar="DIR", help="folder that bort export --format onnx wrote")
    parser.add_argument("--minutes", type=float, default=10.0, metavar="X", help="how long")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of the runtime (default: one per core)")
    parser.add_argument("--clients", type=int, default=4, metavar="N", help="threads that send texts, each one after another")
    parser.set_defaults(measure=_bench_soak)


def _bench_soak(arguments: argparse.Namespace) -> None:
    from bort.bench.inference.soak import print_report, soak
    from bort.bench.report import write_json_line
    from bort.machine import num_threads

    threads = num_threads() if arguments.threads is None else arguments.threads
    record = soak(Path(arguments.exported), arguments.minutes, threads, arguments.clients, sys.stderr.isatty())
    print_report(record)
    write_json_line(record, arguments.json)
