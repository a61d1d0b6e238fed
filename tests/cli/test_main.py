"""The command as a user meets it: light help, one-line errors with exit status 2, nothing half-written."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bort import get_bort_model
from bort.cli import VERBS, main
from bort.errors import on_one_line
from bort.parameters import write_parameters


def run_bort(*arguments, text=None, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "bort", *map(str, arguments)], input=text, capture_output=True, text=True, check=False, cwd=cwd
    )


@pytest.mark.parametrize("verb", ["", *VERBS, "vocab train", "vocab convert"])
def test_every_help_is_printed_with_defaults(verb, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*verb.split(), "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: bort")
    if verb in ("data", "pretrain", "finetune"):
        assert "(default: " in text


def test_import_and_help_load_no_framework():
    program = (
        "import sys, bort\n"
        "from bort.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'mxnet', 'gluonnlp', 'horovod', 'torch', 'sklearn', 'scipy', 'matplotlib', 'tokenizers', 'gigatoken', 'sentencepiece'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stderr == "[]\n"
    assert all(verb in result.stdout for verb in VERBS)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, repository, tokenizer):
    """A folder with a vocabulary, shards, and several things that are wrong."""
    folder = tmp_path_factory.mktemp("inputs")
    tokenizer.save(folder / "vocab")
    assert (
        main(["vocab", "train", "--input", str(repository / "test_data/heldout"), "--output", str(folder / "other"), "--vocab_size", "300"])
        == 0
    )
    arguments = ["--input", str(repository / "test_data/heldout"), "--vocab", str(folder / "vocab"), "--max_seq_length", "64"]
    assert main(["data", *arguments, "--output", str(folder / "shards")]) == 0
    assert main(["data", *arguments[:-1], "256", "--output", str(folder / "long")]) == 0
    (folder / "empty.txt").write_text("\n")
    (folder / "broken.json").write_text("{")
    write_parameters(folder / "bort.params", {"word_embed.0.weight": np.ones((3, 2), np.float32)})
    config = (repository / "test_data/models/student.json").read_text().replace("800", str(len(tokenizer.vocab)))
    (folder / "model.json").write_text(config)
    get_bort_model(str(folder / "model.json"))[0].save_parameters(str(folder / "whole.params"))
    (folder / "truncated.params").write_bytes((folder / "bort.params").read_bytes()[:-4])
    return folder


PRETRAIN = "pretrain --vocab {i}/vocab --output_dir {o} --num_steps 1 --teacher_model none --model {r}/test_data/models/student.json "
FINETUNE = "finetune --output_dir {o} --model {i}/model.json --params {i}/whole.params --vocab {i}/vocab "
WRONG = {
    "no verb": ("", "required: VERB"),
    "unknown verb": ("distil", "invalid choice: 'distil'"),
    "unknown option": ("data --inputs x", "required: --input"),
    "missing text": ("data --input {i}/nowhere.txt --output {o} --vocab {i}/vocab", r"nowhere\.txt: no such text file"),
    "empty corpus": ("data --input {i}/empty.txt --output {o} --vocab {i}/vocab", r"empty\.txt: no text in it"),
    "no output": ("data --input {r}/test_data/heldout --output= --vocab {i}/vocab", "--output is empty; give a folder"),
    "no vocabulary": ("data --input {r}/test_data/heldout --output {o} --vocab {i}/shards", "shards: no vocabulary there"),
    "bad number": (
        "data --input {r}/test_data/heldout --output {o} --vocab {i}/vocab --max_seq_length 2",
        "max_seq_length must be at least 4",
    ),
    "no shards": (PRETRAIN + "--data {i}/vocab", "vocab: no shards"),
    "shards of another vocabulary": (
        "pretrain --vocab {i}/other --output_dir {o} --num_steps 1 --teacher_model none --data {i}/shards",
        "another vocabulary",
    ),
    "sequences too long": (PRETRAIN + "--data {i}/long", "128 positions, the shards hold sequences of up to 256"),
    "unknown architecture": (
        "pretrain --vocab {i}/vocab --output_dir {o} --teacher_model none --data {i}/shards --model bort_9",
        'no architecture "bort_9"',
    ),
    "broken configuration": (
        "pretrain --vocab {i}/vocab --output_dir {o} --teacher_model none --data {i}/shards --model {i}/broken.json",
        r"broken\.json: not JSON",
    ),
    "teacher without parameters": (
        "pretrain --vocab {i}/vocab --output_dir {o} --data {i}/shards --model {r}/test_data/models/student.json",
        "needs --teacher_params",
    ),
    "parameters of another model": (
        PRETRAIN + "--data {i}/shards --model {i}/model.json --params {i}/bort.params",
        r"bort\.params: no parameter",
    ),
    "truncated parameters": (
        "finetune --task RTE --data_root {r}/test_data --output_dir {o} --vocab {i}/vocab --model {i}/model.json "
        "--params {i}/truncated.params",
        r"truncated\.params.*offset|truncated\.params.*byte",
    ),
    "unknown task": (FINETUNE + "--task XYZ", 'no task "XYZ"; there are .*RTE'),
    "task without data": (FINETUNE + "--task RTE --data_root {i}", r"RTE: no train\.tsv in"),
    "model and vocabulary of different sizes": (
        "finetune --task RTE --data_root {r}/test_data --output_dir {o} --vocab {i}/other --model {i}/model.json --params {i}/whole.params",
        "the vocabulary has 300 tokens, the model 400",
    ),
    "a file where a folder is needed": (
        "data --input {r}/test_data/heldout --output {i}/empty.txt --vocab {i}/vocab",
        r"empty\.txt: .*; a file stands where a folder is needed",
    ),
    "no checkpoint to resume": (PRETRAIN + "--data {i}/shards --resume {i}", r"state\.json: No such file"),
    "no model folder": ("finetune --task RTE --model {i}/nowhere --output_dir {o}", "nowhere.*or give a config.json or a model folder"),
    "predicting without a classifier": ("predict --checkpoint {i}/vocab --input -", r"config\.json"),
}


# One that the parser refuses and one that is found late stand for all: what a process says beyond main() is the same for each.
AS_PROCESSES = ("unknown option", "truncated parameters")


def call_main(*arguments, capfd):
    """As ``run_bort``, in this process."""
    capfd.readouterr()
    try:
        status = main(list(arguments))
    except SystemExit as stop:
        status = stop.code
    return subprocess.CompletedProcess(arguments, status, *capfd.readouterr())


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_one_line_and_leaves_nothing(name, inputs, repository, tmp_path, capfd):
    command, message = WRONG[name]
    output = tmp_path / "output"
    words = command.format(i=inputs, o=output, r=repository).split()
    result = run_bort(*words) if name in AS_PROCESSES else call_main(*words, capfd=capfd)
    assert result.returncode == 2, result.stderr
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert result.stderr.startswith("bort: error: ")
    assert re.search(message, result.stderr), result.stderr
    assert result.stdout == ""
    assert not output.exists()


def test_a_line_feed_in_a_name_leaves_an_error_one_line(tmp_path, capfd):
    assert main(["data", "--input", str(tmp_path / "new\nline.txt"), "--output", str(tmp_path / "out"), "--vocab", "x"]) == 2
    assert capfd.readouterr().err.count("\n") == 1


@given(st.text(st.characters(exclude_categories=[])))
def test_text_from_outside_is_one_harmless_line(text):
    line = on_one_line(text)
    assert line.isprintable()
    assert len(f"{line}x".splitlines()) == 1
    if text.isprintable():
        assert line == text


def test_signs_that_steer_a_terminal_are_shown_as_what_they_are():
    assert on_one_line("é 漢\x1b]0;x\x07\r\n\u2028\u202e\udcff") == r"é 漢\x1b]0;x\x07\r\n\u2028\u202e\udcff"


@pytest.mark.parametrize("verb", ["tasks", "tasks CB --unknown"])
def test_no_sign_of_an_argument_or_a_file_reaches_the_terminal_raw(verb, tmp_path):
    odd = "\x1b[31m\r\u2028x"
    (tmp_path / "glue/RTE").mkdir(parents=True)
    (tmp_path / "glue/RTE/train.tsv").write_text(f"{odd}\tlabel\n")
    arguments = ["tasks", odd] if verb == "tasks" else [*verb.split(), odd]
    result = run_bort(*arguments, "--data_root", tmp_path)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.rstrip("\n").isprintable()
    assert r"\x1b[31m" in result.stderr
    listed = run_bort("tasks", "RTE", "--data_root", tmp_path)
    assert r"it has \x1b[31m\r\u2028x, label" in listed.stdout
    assert not set(listed.stdout) & set("\x1b\r\u2028")
