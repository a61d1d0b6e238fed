"""The commands of the README and of the page on fine-tuning, run as they stand in a copy of the repository."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
FINETUNING = (REPOSITORY / "docs" / "finetuning.md").read_text(encoding="utf-8")
DEPLOY = (REPOSITORY / "docs" / "deploy.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def commands(page):
    """Commands of all blocks for a shell, each with the lines that continue it."""
    return [command for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL) for command in re.split(r"(?<!\\)\n", block.strip())]


BASH = commands(README)
NEEDS_RUNTIMES = re.compile(r"--int8|--exported")
HAS_RUNTIMES = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime", "openvino", "nncf"))
NEEDS_ROBERTA_VOCABULARY = "openwebtext_ccnews_stories_books_cased"


def runnable(command):
    """Commands without a placeholder, if what they need is installed; those that run these tests would not end, or run others twice."""
    is_possible = HAS_RUNTIMES or not NEEDS_RUNTIMES.search(command)
    return "<" not in command and not command.startswith("scripts/run_tests.sh") and is_possible


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the repository with this environment, and test_data's rows where a user's data sets are."""
    folder = tmp_path_factory.mktemp("readme") / "bort"
    ignored = shutil.ignore_patterns(".git", ".venv", "runs", "__pycache__", ".*_cache", ".hypothesis", "bort.params", "*.json.partial")
    shutil.copytree(REPOSITORY, folder, ignore=ignored)
    (folder / ".venv").symlink_to(Path(sys.executable).parent.parent)
    return folder


def run(command, checkout):
    environment = os.environ | {"MXNET_HOME": str(checkout / "mxnet"), "HF_HOME": str(checkout / "huggingface")}
    return subprocess.run(
        command, shell=True, cwd=checkout, env=environment, capture_output=True, text=True, executable="/bin/bash", check=False
    )


def test_the_readme_has_its_commands():
    assert BASH[:2] == ["scripts/quickstart.sh", "scripts/run_tests.sh"]
    assert len([command for command in BASH if runnable(command)]) >= 8
    assert all((REPOSITORY / path).exists() for path in re.findall(r"\]\(((?!http)[^)]+)\)", README))
    assert all((REPOSITORY / "docs" / path).exists() for path in re.findall(r"\]\(((?!http)[^)]+)\)", FINETUNING))
    assert all((REPOSITORY / command.split()[0]).exists() for command in BASH if command.startswith("scripts/"))


def test_the_commands_run_in_order(checkout, request):
    for command in filter(runnable, BASH):
        if NEEDS_ROBERTA_VOCABULARY in command and not lend_roberta_vocabulary(checkout):
            continue
        result = run(command, checkout)
        assert result.returncode == 0, f"{command}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
    quickstart = checkout / "runs" / "quickstart"
    for task in ("RTE", "SST-2"):
        assert (quickstart / "finetune" / task / "predictions" / f"{task}.tsv").exists()
    assert (quickstart / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_commands_of_fine_tuning_and_deployment_run_after_those_of_the_readme(checkout):
    if not (checkout / "runs" / "quickstart").exists():
        assert run("scripts/quickstart.sh", checkout).returncode == 0
    for command in filter(runnable, [*commands(FINETUNING), *commands(DEPLOY)]):
        result = run(command, checkout)
        assert result.returncode == 0, f"{command}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
    assert (checkout / "runs/docs/cb/report.md").read_text().count("±") >= 1
    assert zipfile.is_zipfile(checkout / "runs/docs/glue.zip")
    if HAS_RUNTIMES:
        (snippet,) = (snippet for snippet in re.findall(r"```python\n(.*?)```", DEPLOY, re.DOTALL) if "ExportedModel" in snippet)
        (checkout / "deploy.py").write_text(snippet, encoding="utf-8")
        result = run(".venv/bin/python deploy.py", checkout)
        assert re.fullmatch(r"(((not_)?entailment [01]\.\d+(e-\d+)?)\n){2}", result.stdout), result.stderr


def lend_roberta_vocabulary(checkout):
    """Put RoBERTa's files into model/, if they are beside the repository; whether they are there."""
    source = REPOSITORY.parent / "shared" / "data" / "vocab"
    for name in ("vocab.json", "merges.txt"):
        if (source / name).exists() and not (checkout / "model" / name).exists():
            (checkout / "model" / name).symlink_to(source / name)
    return (checkout / "model" / "vocab.json").exists()


def test_the_model_loads_as_shown(checkout):
    if not lend_roberta_vocabulary(checkout):
        pytest.skip("needs RoBERTa's vocab.json and merges.txt, which are not beside the repository")
    make = "from bort import get_bort_model\nget_bort_model('bort_4_8_768_1024')[0].save_parameters('model/bort.params')\n"
    code = make + PYTHON[0] + "print(sequence.shape, decoded.shape, vocab.to_tokens([31414, 232]))\n"
    (checkout / "load.py").write_text(code, encoding="utf-8")
    result = run(".venv/bin/python load.py", checkout)
    assert result.stdout == "(1, 5, 1024) (1, 1, 50265) ['Hello', 'Ġworld']\n", result.stderr


def test_the_published_task_classes_work_as_shown(checkout):
    datasets = checkout / "mxnet" / "datasets"
    datasets.mkdir(parents=True, exist_ok=True)
    shutil.copytree(REPOSITORY / "test_data" / "superglue", datasets / "superglue")
    more = "print(len(rows), label in (0, 1, False, True), len(task.dataset_val()[1]), len(task.dataset_test()[1]))\n"
    (checkout / "task.py").write_text(PYTHON[1] + more, encoding="utf-8")
    result = run(".venv/bin/python task.py", checkout)
    assert re.fullmatch(r"\d+ True \d+ \d+\n", result.stdout), result.stderr


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("scripts/run_pretraining_distillation.sh", "<num gpus>"),
        ("scripts/run_pretraining_distillation.sh none TEST", "must be at least 1"),
        ("scripts/run_pretraining_distillation.sh 1 nowhere nowhere", "no vocabulary|no shards"),
        ("scripts/run_finetune.sh", "<task>"),
        ("MODEL=test_data scripts/run_finetune.sh RTE", r"test_data: no bort\.params .* give a model folder"),
        ("scripts/create_pretraining_data.py --input_file nowhere.txt --output_dir out", r"nowhere\.txt: no such text file"),
    ],
)
def test_a_script_called_wrongly_says_how_it_is_called(checkout, command, message):
    result = run(command, checkout)
    assert result.returncode != 0
    assert re.search(message, result.stderr), result.stderr
