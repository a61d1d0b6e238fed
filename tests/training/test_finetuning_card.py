"""Cards of classifiers: every figure comes from what was given, YAML and tables parse, and the commands on it work."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys

import pytest
import yaml

from bort import BortConfig
from bort.cli import main
from bort.tasks import get_task
from bort.training.finetuning_card import finetuning_card

CONFIG = BortConfig(hidden_size=24, intermediate_size=40, num_hidden_layers=3, num_attention_heads=2, max_position_embeddings=96)
RESULT = {
    "task": "MNLI",
    "score": 0.61234567,
    "best_epoch": 3,
    "epochs": 5,
    "steps": 98765,
    "dev": {"dev_matched": {"accuracy": 0.62345678}, "dev_mismatched": {"accuracy": 0.60123456}},
    "majority": {"dev_matched": {"accuracy": 0.35445}, "dev_mismatched": {"accuracy": 0.35221}},
    "parameters": 1618033,
    "train_rows": 392702,
    "seconds": 12.5,
}
FACTS = {"command": ["bort", "finetune", "--task", "MNLI", "--output_dir", "my runs"], "encoder": "a `strange` | name", "workers": 2}


def card(**changes):
    return finetuning_card(CONFIG, get_task("MNLI"), {"lr": 3e-4, "seed": 17}, RESULT | changes, FACTS)


def test_every_figure_is_on_the_card_and_none_that_is_not_known():
    text = card()
    for figure in ("0.6235", "0.6012", "0.3544", "0.3522", "0.6123", "98,765", "392,702", "1,618,033", "0.0003", "17"):
        assert figure in text, figure
    assert shlex.join(FACTS["command"]) in text
    assert "Machine" not in text
    assert "Machine" in finetuning_card(CONFIG, get_task("MNLI"), {}, RESULT, FACTS | {"versions": {"bort": "1"}})


def test_the_front_is_what_hugging_face_reads():
    front = yaml.safe_load(card().split("---\n")[1])
    assert front["pipeline_tag"] == "text-classification"
    (result,) = front["model-index"][0]["results"]
    assert [metric["value"] for metric in result["metrics"]] == [0.6235, 0.6012]


def test_a_regression_answers_a_score():
    result = RESULT | {"dev": {"dev": {"pearson": 0.5, "spearman": 0.25}}, "majority": {"dev": {"pearson": 0.0, "spearman": 0.0}}}
    assert "answers a score" in finetuning_card(CONFIG, get_task("STS-B"), {}, result, {})


@pytest.mark.parametrize("task", ["SST-2", "RTE"])
def test_what_a_runs_card_says_can_be_done(task, repository, tokenizer, tmp_path):
    sizes = CONFIG.to_dict() | {"vocab_size": len(tokenizer.vocab), "num_hidden_layers": 1}
    (tmp_path / "config.json").write_text(json.dumps(sizes))
    tokenizer.save(tmp_path / "vocab")
    arguments = [
        "--model",
        str(tmp_path / "config.json"),
        "--params",
        "none",
        "--vocab",
        str(tmp_path / "vocab"),
        "--data_root",
        str(repository / "test_data"),
    ]
    arguments += ["--output_dir", str(tmp_path / "run"), "--training_steps", "2", "--max_len", "32"]
    assert main(["finetune", "--task", task, *arguments]) == 0
    folder = tmp_path / "run/best"
    text = (folder / "README.md").read_text()
    program = re.search(r"```python\n(.+?)\n```", text, re.DOTALL).group(1)
    result = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    header, answer = result.stdout.strip().splitlines()
    assert header == "index\tprediction"
    assert answer.split("\t")[1] in [str(label) for label in get_task(task).leaderboard_labels]
