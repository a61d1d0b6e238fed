"""``bort finetune``: where settings come from, what a classifier begins as, and what is wrong in one line."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from bort import BortConfig, get_bort_model
from bort.cli import main
from bort.gluon.parameters import get_arrays
from bort.model_directory import read_model_directory, write_model_directory
from bort.parameters import read_parameters
from bort.tasks.recipes import recipe
from bort.training.finetuning_result import read_result


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer):
    """Vocabulary, configuration and a model folder, another vocabulary beside them."""
    folder = tmp_path_factory.mktemp("finetune")
    config = BortConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        vocab_size=len(tokenizer.vocab),
    )
    net, _ = get_bort_model(config, seed=5)
    write_model_directory(folder / "model", config, get_arrays(net), tokenizer)
    tokenizer.save(folder / "vocab")
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    tokens = json.loads((folder / "vocab" / "vocab.json").read_text())
    swapped = sorted(tokens, key=tokens.get)[300:302]
    tokens[swapped[0]], tokens[swapped[1]] = tokens[swapped[1]], tokens[swapped[0]]
    (folder / "other").mkdir()
    (folder / "other" / "vocab.json").write_text(json.dumps(tokens))
    (folder / "other" / "merges.txt").write_text((folder / "vocab" / "merges.txt").read_text())
    return folder


@pytest.fixture
def finetune(folder, repository, tmp_path, capsys, blank_curves):
    """Runs the command; returns its status, the run's folder and what was printed."""

    def finetune(task, options, output="run", begin="--model {f}/model"):
        capsys.readouterr()
        words = f"{begin} --data_root {repository}/test_data --output_dir {tmp_path / output} --cache_dir none {options}"
        status = main(["finetune", "--task", task, *words.format(f=folder, t=tmp_path).split()])
        printed = capsys.readouterr()
        return status, tmp_path / output, printed.out if status == 0 else printed.err

    return finetune


def test_what_is_not_given_comes_from_the_recipe_and_what_is_given_goes_before_it(finetune):
    status, run, printed = finetune("RTE", "--training_steps 2 --lr 3e-4 --epsilon 1e-5 --no-use_scheduler")
    assert status == 0, printed
    settings, expected = read_result(run).settings, recipe("RTE")
    assert (settings["lr"], settings["adam_epsilon"], settings["use_scheduler"]) == (3e-4, 1e-5, False)
    for name in ("batch_size", "warmup_ratio", "weight_decay", "early_stop"):
        assert settings[name] == getattr(expected, name), name
    # No longer than the encoder's positions, which is said.
    assert settings["max_len"] == 64 < expected.max_len
    assert f"max_len: 64, as the encoder has no more positions; the recipe has {expected.max_len}\n" in printed
    assert (settings["seed"], settings["dropout"], settings["training_steps"]) == (0, 0.1, 2)
    assert "encoder: " in printed
    assert f"predictions in {run}/predictions/RTE.tsv" in printed


def test_the_encoder_is_that_of_the_model(finetune, folder):
    """With a learning rate that changes next to nothing."""
    _, run, _ = finetune("RTE", "--training_steps 1 --lr 1e-20")
    best, model = read_parameters(run / "best" / "bort.params"), read_parameters(folder / "model" / "bort.params")
    for name, array in best.items():
        if name.startswith("bort."):
            np.testing.assert_allclose(array, model[name.removeprefix("bort.")], rtol=0, atol=1e-15)
    assert (np.abs(best["classifier.3.weight"]) > 0).any()


def test_a_random_encoder_must_be_asked_for(finetune):
    options = "--training_steps 1 --vocab {f}/vocab"
    status, run, printed = finetune("RTE", options, begin="--model {f}/config.json")
    assert status == 2
    assert "give --params FILE and --vocab DIR too, or --params none for an encoder at random" in printed
    assert not run.exists()
    status, run, printed = finetune("RTE", options, begin="--model {f}/config.json --params none")
    assert status == 0, printed
    assert "encoder: random" in printed
    assert read_result(run).settings["encoder"] == "random"
    assert finetune("RTE", options, "again", "--model {f}/model --params none")[0] == 0
    # Whether from a configuration or from a folder of the same sizes.
    assert (run / "best" / "bort.params").read_bytes() == (run.with_name("again") / "best" / "bort.params").read_bytes()


def test_a_classifier_of_other_labels_gives_its_encoder_and_one_of_the_same_its_head_too(finetune, tmp_path):
    status, mnli, printed = finetune("MNLI", "--training_steps 2 --lr 1e-3", "mnli")
    assert status == 0, printed
    status, run, printed = finetune("RTE", "--training_steps 1 --lr 1e-20", "rte", f"--init_from {mnli}/best")
    assert status == 0, printed
    assert "encoder: " in printed
    assert "fine-tuned on MNLI" in printed
    assert "classifier: new, gaussian, since RTE has other labels" in printed
    before, after = (read_parameters(folder / "best" / "bort.params") for folder in (mnli, run))
    assert all(np.allclose(before[name], after[name], rtol=0, atol=1e-15) for name in before if name.startswith("bort."))
    assert after["classifier.3.weight"].shape == (2, 16)
    # QNLI's labels are RTE's, in the same order.
    status, run, printed = finetune("QNLI", "--training_steps 1 --lr 1e-20", "qnli", f"--init_from {run}/best")
    assert status == 0, printed
    assert "classifier: that of RTE, since its labels are the same" in printed
    again = read_parameters(run / "best" / "bort.params")
    assert all(np.allclose(after[name], again[name], rtol=0, atol=1e-15) for name in after)
    assert read_model_directory(run / "best").task.name == "QNLI"
    for option in ("--init xavier", "--prob 0.5"):
        status, _, printed = finetune("QNLI", f"--training_steps 1 {option}", "drawn", f"--init_from {run}/best")
        assert status == 2
        assert "--init and --prob draw a new classifier, but that of QNLI is taken over" in printed


def test_labels_that_only_python_takes_for_the_same_are_other_labels(finetune):
    """COPA's 0 and 1 say which of two is right, BoolQ's false and true whether one is."""
    status, copa, printed = finetune("COPA", "--training_steps 1", "copa")
    assert status == 0, printed
    status, _, printed = finetune("BoolQ", "--training_steps 1", "boolq", f"--init_from {copa}/best")
    assert status == 0, printed
    assert "classifier: new, gaussian, since BoolQ has other labels" in printed


def test_leaderboard_files_that_are_not_made_are_named_with_the_reason(finetune, repository, tmp_path):
    shutil.copytree(repository / "test_data" / "glue" / "MNLI", tmp_path / "data" / "glue" / "MNLI")
    (tmp_path / "data" / "glue" / "MNLI" / "test_matched.tsv").unlink()
    status, run, printed = finetune("MNLI", "--training_steps 1 --data_root {t}/data")
    assert status == 0, printed
    assert f"predictions in {run}/predictions/MNLI-mm.tsv\n" in printed
    assert "no MNLI-m.tsv, since MNLI's test_matched.tsv is not in glue/MNLI/\n" in printed
    assert "no AX.tsv, since AX's " in printed
    assert printed.count("\nno ") == 2


def test_a_complete_run_whose_classifier_a_sweep_has_removed_announces_none(finetune):
    _, run, printed = finetune("RTE", "--training_steps 1")
    assert f"best epoch 1 of 1, classifier in {run}/best\n" in printed
    shutil.rmtree(run / "best")
    status, _, printed = finetune("RTE", "--training_steps 1")
    assert status == 0
    assert "its classifier was not kept" in printed
    assert "best epoch 1 of 1\n" in printed


WRONG = {
    "a task without training rows": ("AX", "", None, r"AX has no training rows; .* MNLI: bort predict"),
    "another vocabulary": ("RTE", "--vocab {f}/other", None, "the encoder .*/model has another vocabulary: id 300 is "),
    "a classifier as the model": ("RTE", "", "--model {t}/cb/best", "a fine-tuned classifier; give its folder as --init_from"),
    "a model as the classifier": ("RTE", "", "--init_from {f}/model", "a pre-trained model without a classifier; give it as --model"),
    "both": ("RTE", "", "--init_from {f}/model --params none", "--params goes with --model"),
    "diverging": ("RTE", "--lr 1e30 --epochs 1", None, r"is not finite by step \d+; there is no checkpoint yet; .*lower --lr"),
    "half precision without a GPU": ("RTE", "--dtype float16", None, "float16"),
    "longer than the encoder": ("RTE", "--max_len 65", None, "--max_len 65: the encoder .*/model has 64 positions; give at most so many"),
    "no rows a batch": ("RTE", "--batch_size 0", None, "batch_size must be at least 1, got 0"),
    "keep_question": ("RTE", "--keep_question", None, "--keep_question is for RACE"),
    "no files": ("RTE", "--data_root {f}", None, r"RTE: no train\.tsv"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_one_line_and_leaves_no_classifier(finetune, name):
    import re

    task, options, begin, message = WRONG[name]
    if name == "a classifier as the model":
        assert finetune("CB", "--training_steps 1", "cb")[0] == 0
    status, run, printed = finetune(task, options, begin=begin or "--model {f}/model")
    assert status == 2, printed
    assert printed.count("\n") == 1, printed
    assert re.search(message, printed), printed
    assert not (run / "best").exists()
    assert not (run / "result.json").exists()


def test_the_other_names_of_options_are_known(finetune, folder):
    """As the published script has them."""
    begin = "--model {f}/config.json --pretrained_parameters {f}/model/bort.params --vocab {f}/vocab"
    status, run, printed = finetune("RTE", "--task_name CB --training_steps 1", begin=begin)
    assert status == 0, printed
    assert read_result(run).task == "CB"
