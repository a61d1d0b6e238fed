"""Rows for INT8: those of fine-tuning, the same every time, masked for a masked language model; and what a file must hold."""

from __future__ import annotations

import numpy as np
import pytest

from bort.config import BortConfig
from bort.errors import BortError
from bort.export.int8_rows import Reader, draw, examples_of_file, training_examples
from bort.model_directory import TrainedTask
from bort.tasks import get_task
from bort.tasks.encoding import encode_examples


def test_a_draw_is_a_sample_without_repeats_and_always_the_same():
    items = list(range(1000))
    drawn = draw(items, 300)
    assert len(set(drawn)) == 300
    assert draw(items, 300) == drawn
    assert sorted(draw(items[:7], 300)) == items[:7]
    # Rows come from everywhere, and not from the beginning of a sorted file: the mean of 300 of them is within five standard errors.
    assert abs(np.mean(drawn) - 499.5) < 5 * 289 / 300**0.5


def test_rows_of_a_classifier_are_those_of_fine_tuning(tokenizer, repository):
    task, trained = get_task("RTE", repository / "test_data"), TrainedTask("RTE", ("not_entailment", "entailment"), 16)
    examples = training_examples(task)
    assert len(examples) == 200
    reader = Reader.of("classifier", tokenizer, BortConfig(vocab_size=len(tokenizer.vocab)), trained)
    inputs = reader.inputs(examples)
    for row, ids in zip(inputs, encode_examples(examples, tokenizer, 16), strict=True):
        assert row.keys() == {"input_ids", "attention_mask"}
        assert all(array.dtype == np.int64 for array in row.values())
        np.testing.assert_array_equal(row["input_ids"], ids[None])
        np.testing.assert_array_equal(row["attention_mask"], np.ones((1, len(ids))))


def test_long_articles_keep_their_question_where_fine_tuning_did(tokenizer, repository):
    task, labels = get_task("RACE", repository / "test_data"), (0, 1, 2, 3)
    config = BortConfig(vocab_size=len(tokenizer.vocab))
    (keeps, cuts) = (Reader.of("classifier", tokenizer, config, TrainedTask("RACE", labels, 64, kept)) for kept in (True, False))
    examples = training_examples(task)
    expected = encode_examples(examples, tokenizer, 64, keep_question=True)
    assert all((row["input_ids"][0] == ids).all() for row, ids in zip(keeps.inputs(examples), expected, strict=True))
    assert any(
        not np.array_equal(one["input_ids"], other["input_ids"])
        for one, other in zip(keeps.inputs(examples), cuts.inputs(examples), strict=True)
    )


def test_a_masked_language_model_sees_masks(tokenizer, repository):
    lines = repository / "test_data/corpus/river_and_weather.txt"
    examples = examples_of_file(lines, None)
    plain = Reader.of("encoder", tokenizer, BortConfig(vocab_size=len(tokenizer.vocab)), None).inputs(examples)
    masked = Reader.of("mlm", tokenizer, BortConfig(vocab_size=len(tokenizer.vocab)), None).inputs(examples)
    chosen = with_mask = tokens = 0
    for before, after in zip(plain, masked, strict=True):
        positions = after["masked_positions"][0]
        assert 1 <= len(positions) <= 80
        others = np.setdiff1d(np.arange(before["input_ids"].shape[1]), positions)
        np.testing.assert_array_equal(after["input_ids"][0, others], before["input_ids"][0, others])
        chosen += len(positions)
        tokens += before["input_ids"].shape[1] - 2
        with_mask += int((after["input_ids"][0, positions] == tokenizer.vocab.mask_id).sum())
    assert 0.12 < chosen / tokens < 0.18
    assert 0.7 < with_mask / chosen < 0.9


def test_random_rows_are_ones_that_the_model_can_read(tokenizer):
    config = BortConfig(vocab_size=len(tokenizer.vocab), max_position_embeddings=24)
    vocab = tokenizer.vocab
    for kind in ("encoder", "mlm"):
        rows = Reader.of(kind, tokenizer, config, None).random_inputs()
        assert {row["input_ids"].shape[1] for row in rows} <= set(range(8, 25))
        for row in rows:
            assert (row["input_ids"][0, 0], row["input_ids"][0, -1]) == (vocab.bos_id, vocab.eos_id)
            assert not np.isin(row["input_ids"][0, 1:-1], [vocab.bos_id, vocab.eos_id, vocab.pad_id]).any()


def test_lines_and_rows_of_a_file(tmp_path, repository):
    path = tmp_path / "texts"
    path.write_bytes("eins\n\n  \nzwei ä\r\ndrei".encode())
    assert [example.texts for example in examples_of_file(path, None)] == [("eins",), ("zwei ä",), ("drei",)]
    task = get_task("RTE", repository / "test_data")
    path.write_text("a\tb\nc\td\n")
    assert [example.texts for example in examples_of_file(path, task)] == [("a", "b"), ("c", "d")]
    path.write_text('{"text1": "a", "text2": "b"}\n')
    assert [example.texts for example in examples_of_file(path, task)] == [("a", "b")]


@pytest.mark.parametrize(
    ("content", "task", "wrong"),
    [
        (b"", None, "no rows to calibrate with"),
        (b"\n \n", None, "no rows to calibrate with"),
        (b"fine\nf\xe9ur\n", None, "line 2: not UTF-8 at byte 1"),
        (b"x" * (1 << 20), None, "line 1: longer than 1 MiB"),
        (b"a\tb\nonly one\n", "RTE", "line 2: 1 tab-separated texts, the task has 2"),
        (b"", "RTE", "no rows to calibrate with"),
        (None, None, "cannot read: No such file"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path, repository, content, task, wrong):
    path = tmp_path / "texts"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BortError, match=wrong) as raised:
        examples_of_file(path, task and get_task(task, repository / "test_data"))
    assert str(path) in str(raised.value)
