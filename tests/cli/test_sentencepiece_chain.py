"""A SentencePiece model in place of a BPE folder, from text to predictions."""

from __future__ import annotations

from bort.cli import main
from bort.model_directory import read_model_directory


def test_text_to_predictions(repository, tmp_path):
    text, rows = str(repository / "test_data/corpus"), str(repository / "test_data")
    config = tmp_path / "config.json"
    config.write_text('{"hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}')
    train = ["vocab", "train", "--model_type", "sentencepiece", "--input", text, "--output", str(tmp_path / "vocab"), "--vocab_size", "800"]
    assert main(train) == 0
    (model_file,) = (tmp_path / "vocab").glob("*.model")
    for vocab in (tmp_path / "vocab", model_file):
        assert main(["data", "--input", text, "--output", str(tmp_path / "shards"), "--vocab", str(vocab), "--max_seq_length", "64"]) == 0
    pretrain = ["--data", str(tmp_path / "shards"), "--vocab", str(model_file), "--model", str(config), "--teacher_model", "none"]
    assert main(["pretrain", *pretrain, "--output_dir", str(tmp_path / "run"), "--num_steps", "2"]) == 0
    model = tmp_path / "run" / "model"
    assert len(read_model_directory(model).tokenizer().vocab) == 800
    finetune = ["--task", "RTE", "--model", str(model), "--data_root", rows, "--output_dir", str(tmp_path / "rte"), "--epochs", "1"]
    assert main(["finetune", *finetune]) == 0
    best = tmp_path / "rte" / "best"
    assert main(["predict", "--checkpoint", str(best), "--task", "RTE", "--data_root", rows, "--output", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "RTE.tsv").read_bytes() == (tmp_path / "rte" / "predictions" / "RTE.tsv").read_bytes()
