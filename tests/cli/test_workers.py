"""The training commands on one and on two Horovod workers: real processes, the same result."""

from __future__ import annotations

import json
import subprocess
from functools import cache

import numpy as np
import pytest

from bort.cli import main
from bort.parameters import read_parameters
from bort.training.journal import read_metrics

from ..real_runs import REPOSITORY, assert_only_worker_0_printed, bort_on, one_thread


@pytest.fixture(scope="module")
def folder(tmp_path_factory, repository, tokenizer, blank_curves):
    """Vocabulary, shards, a teacher of two updates, and a configuration without dropout, which each worker would draw for itself."""
    folder = tmp_path_factory.mktemp("workers")
    tokenizer.save(folder / "vocab")
    sizes = {"hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 64}
    (folder / "config.json").write_text(json.dumps(sizes | {"vocab_size": len(tokenizer.vocab), "hidden_dropout_prob": 0.0}))
    for part in ("corpus", "heldout"):
        source = ["--input", str(repository / "test_data" / part), "--vocab", str(folder / "vocab"), "--max_seq_length", "32"]
        assert main(["data", *source, "--output", str(folder / part)]) == 0
    run(folder, "teacher", 1, "--teacher_model none --num_steps 2 --seed 9")
    return folder


def run(folder, output, workers, options):
    """Run ``bort pretrain`` on so many workers, one of them in this process, and return the run's folder; only worker 0 may print."""
    shared = f"--data {folder}/corpus --data_eval {folder}/heldout --vocab {folder}/vocab --model {folder}/config.json --lr 1e-3"
    words = ["pretrain", *shared.split(), "--output_dir", str(folder / output), *options.split()]
    if workers == 1:
        assert main(words) == 0
    else:
        command = bort_on(workers, *words)
        result = subprocess.run(command, cwd=REPOSITORY, env=one_thread(), capture_output=True, text=True, timeout=180, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
        assert_only_worker_0_printed(result.stdout)
    assert len(list((folder / output / "tensorboard").iterdir())) == 1
    return folder / output


def largest_difference(first, second):
    one, two = read_parameters(first), read_parameters(second)
    assert one.keys() == two.keys()
    return max(float(np.abs(one[name] - two[name]).max()) for name in one)


DISTIL = "--teacher_model {folder}/teacher/model --num_steps 4 --log_interval 2 --ckpt_interval 0 "
SPLITS = {
    "2 workers, 2 micro-batches": (2, "--batch_size 3 --accumulate 2"),
    "3 workers": (3, "--batch_size 4"),
}


@pytest.fixture(scope="module")
def alone(folder):
    return run(folder, "alone", 1, DISTIL.format(folder=folder) + "--batch_size 12")


@pytest.fixture(scope="module")
def distil(folder):
    """Distils with the batches of ``alone`` in one of ``SPLITS``, each once."""

    @cache
    def distil(split):
        workers, options = SPLITS[split]
        return run(folder, split, workers, DISTIL.format(folder=folder) + options)

    return distil


@pytest.mark.parametrize("split", SPLITS)
def test_distillation_on_several_workers_is_that_on_one(alone, distil, split):
    together = distil(split)
    # Sums of gradients are added up in another order; BERTAdam's first steps make up to 1e-6 of it.
    assert largest_difference(alone / "model" / "bort.params", together / "model" / "bort.params") < 1e-5
    entries, expected = read_metrics(together), read_metrics(alone)
    assert [(entry["step"], entry["kind"]) for entry in entries] == [(2, "train"), (4, "train"), (4, "eval")]
    for entry, one in zip(entries, expected, strict=True):
        assert entry.keys() == one.keys()
        # Batches are padded by worker and micro-batch; the clock and the system measure the rest.
        for name in entry.keys() - {"kind", "tokens_per_second", "padding", "waiting", "memory_mb"}:
            assert entry[name] == pytest.approx(one[name], rel=1e-4), name


def test_evaluation_on_two_workers_is_that_on_one(folder, alone):
    """Of one model, so that training plays no part: as it is before the first update that matters."""
    options = f"--params {alone}/model/bort.params --teacher_model none --num_steps 1 --lr 1e-30 --ckpt_interval 0 --seed 4 --batch_size "
    one, two = (run(folder, f"evaluation {workers}", workers, options + str(size)) for workers, size in ((1, 6), (2, 3)))
    expected, found = read_metrics(one)[-1], read_metrics(two)[-1]
    assert found["kind"] == expected["kind"] == "eval"
    assert found["mlm_accuracy"] == expected["mlm_accuracy"]
    assert found["mlm_loss"] == pytest.approx(expected["mlm_loss"], rel=1e-6)


def test_three_workers_give_the_same_bits_every_time(folder, distil):
    """Two workers always do, since a sum of two does not depend on the order."""
    first, second = distil("3 workers"), run(folder, "again", 3, DISTIL.format(folder=folder) + SPLITS["3 workers"][1])
    assert largest_difference(first / "model" / "bort.params", second / "model" / "bort.params") == 0.0
