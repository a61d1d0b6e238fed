"""From rows to examples: labels, places of files, sizes."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import tempfile
from pathlib import Path

import pytest

from bort.errors import BortError
from bort.tasks import get_task
from bort.tasks.inventory import inspect_segment
from bort.tasks.reading import Table
from bort.tasks.task import Segment


def put(root, path: str, text: str):
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def json_row(**fields):
    return json.dumps({"passage": "p", "question": "q", "idx": 0} | fields)


def json_rows(*rows):
    return "\n".join(json_row(idx=number, **fields) for number, fields in enumerate(rows))


def test_labels_become_class_numbers_in_the_published_order(tmp_path):
    put(tmp_path, "glue/RTE/train.tsv", "index\tsentence1\tsentence2\tlabel\n0\ta\tb\tentailment\n1\tc\td\tnot_entailment\n")
    examples = get_task("RTE", tmp_path).examples("train")
    assert [(example.id, example.texts, example.label, example.line) for example in examples] == [
        (0, ("a", "b"), 1, 2),
        (1, ("c", "d"), 0, 3),
    ]


@pytest.mark.parametrize("label", ["entails", "-1", "", "Entailment"])
def test_a_label_outside_the_set_names_file_line_and_set(tmp_path, label):
    file = put(tmp_path, "glue/RTE/dev.tsv", f"index\tsentence1\tsentence2\tlabel\n0\ta\tb\tentailment\n1\tc\td\t{label}\n")
    with pytest.raises(BortError) as caught:
        get_task("RTE", tmp_path).examples("dev")
    assert str(caught.value) == f'{file}, line 3: label "{label}" is not one of not_entailment, entailment'


def test_an_idx_names_one_row_alone(tmp_path):
    file = put(tmp_path, "superglue/BoolQ/test.jsonl", f"{json_row(idx=3)}\n{json_row(idx=4)}\n{json_row(idx='3')}\n")
    with pytest.raises(BortError) as caught:
        get_task("BoolQ", tmp_path).examples("test")
    assert str(caught.value) == f"{file}, line 3: the id 3 is that of {file}, line 1 too"


@pytest.mark.parametrize(("raw", "label"), [(False, 0), (True, 1)])
def test_json_truth_values_are_classes(tmp_path, raw, label):
    put(tmp_path, "superglue/BoolQ/train.jsonl", json_row(label=raw))
    assert get_task("BoolQ", tmp_path).examples("train")[0].label == label


@pytest.mark.parametrize("raw", [0, 1, -1, "true", None, [1], "x" * 500])
def test_other_json_values_are_not_classes(tmp_path, raw):
    put(tmp_path, "superglue/BoolQ/train.jsonl", json_row(label=raw))
    with pytest.raises(BortError, match=r"train\.jsonl, line 1: label .{1,70} is not one of false, true$"):
        get_task("BoolQ", tmp_path).examples("train")


def test_a_test_file_may_lack_labels_or_have_them(tmp_path):
    put(tmp_path, "superglue/BoolQ/test.jsonl", json_rows({}, {"label": -1}, {"label": True}, {"label": None}))
    assert [example.label for example in get_task("BoolQ", tmp_path).examples("test")] == [None, None, 1, None]
    put(tmp_path, "superglue/BoolQ/test.jsonl", json_row(label="maybe"))
    with pytest.raises(BortError, match='label "maybe"'):
        get_task("BoolQ", tmp_path).examples("test")


def test_scores_are_numbers_within_their_range(tmp_path):
    header = "index\tsentence1\tsentence2\tscore\n"
    put(tmp_path, "glue/STS-B/train.tsv", header + "0\ta\tb\t5.000\n1\ta\tb\t0\n2\ta\tb\t3.8\n")
    task = get_task("STS-B", tmp_path)
    assert [example.label for example in task.examples("train")] == [5.0, 0.0, 3.8]
    for bad in ("-1", "5.1", "nan", "inf", "good", "", "0_3", "٣", " 3", "1e0"):
        put(tmp_path, "glue/STS-B/train.tsv", header + f"0\ta\tb\t{bad}\n")
        with pytest.raises(BortError, match=re.escape(f"line 2: score {json.dumps(bad)} is not a number from 0 to 5")):
            task.examples("train")


def test_official_folders_come_before_published_ones(tmp_path):
    row = "sentence\tlabel\n{}\t1\n"
    put(tmp_path, "glue_sst/train.tsv", row.format("published"))
    put(tmp_path, "glue_sst/dev.tsv", row.format("published"))
    put(tmp_path, "glue/SST-2/train.tsv", row.format("official"))
    task = get_task("SST-2", tmp_path)
    assert task.examples("train")[0].texts == ("official",)
    assert task.examples("dev")[0].texts == ("published",)
    assert [task.is_present(name) for name in ("train", "dev", "test")] == [True, True, False]


def test_data_are_looked_for_in_mxnet_home_then_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MXNET_HOME", str(tmp_path / "mx"))
    task = get_task("CB")
    with pytest.raises(BortError) as caught:
        task.examples("train")
    message = str(caught.value)
    assert str(tmp_path / "mx/datasets/superglue/CB") in message
    assert str(tmp_path / "mx/datasets/superglue_cb") in message
    assert "train.jsonl" in message
    assert message.endswith("; fetch it with bort tasks download CB, or name the folder that holds superglue/CB with --data_root")
    assert "\n" not in message
    monkeypatch.delenv("MXNET_HOME")
    put(tmp_path, "home/.mxnet/datasets/superglue_cb/train.jsonl", '{"premise": "a", "hypothesis": "b", "label": "neutral", "idx": 3}')
    assert task.examples("train")[0].id == 3


def test_an_unknown_segment_and_an_empty_file_are_errors(tmp_path):
    put(tmp_path, "glue/RTE/train.tsv", "index\tsentence1\tsentence2\tlabel\n")
    task = get_task("RTE", tmp_path)
    with pytest.raises(BortError, match=r"train\.tsv: no rows"):
        task.examples("train")
    with pytest.raises(BortError, match='RTE has no segment "val"; it has train, dev, test'):
        task.examples("val")


@pytest.mark.parametrize(("rows", "warned"), [(4, False), (6, True), (10, False), (11, True)])
def test_a_file_near_the_official_size_must_meet_it(tmp_path, recwarn, rows, warned):
    put(tmp_path, "glue/RTE/train.tsv", "sentence1\tsentence2\tlabel\n" + "a\tb\tentailment\n" * rows)
    segment = Segment("train", "train.tsv", Table(("sentence1", "sentence2"), "label"), official_size=10)
    task = dataclasses.replace(get_task("RTE", tmp_path), segments=(segment,))
    assert len(task.examples("train")) == rows
    assert [str(warning.message) for warning in recwarn] == (
        [f"{tmp_path / 'glue/RTE/train.tsv'}: {rows} rows where the official file has 10"] if warned else []
    )


def passages(number):
    answers = [{"idx": 0, "text": "a", "label": 0}, {"idx": 1, "text": "b", "label": 1}]
    return {"idx": number, "passage": {"text": "t", "questions": [{"idx": number, "question": "q", "answers": answers}]}}


def test_sizes_are_counted_in_what_the_benchmark_counts(tmp_path, recwarn):
    """A passage of MultiRC is one, however many answers its questions have; a question of RACE is one, however many stand in an article."""
    multirc, race = get_task("MultiRC", tmp_path), get_task("RACE-M", tmp_path)
    put(tmp_path, "superglue/MultiRC/val.jsonl", "\n".join(json.dumps(passages(number)) for number in range(83)))
    assert (len(multirc.examples("dev")), multirc.segment("dev").official_size, len(recwarn)) == (166, 83, 0)
    put(tmp_path, "superglue/MultiRC/val.jsonl", "\n".join(json.dumps(passages(number)) for number in range(82)))
    with pytest.warns(UserWarning, match=r"val\.jsonl: 82 passages where the official file has 83$"):
        multirc.examples("dev")
    for file in range(2):
        count = 700 + file
        article = {
            "id": f"middle{file}.txt",
            "article": "",
            "questions": ["?"] * count,
            "options": [["o"] * 4] * count,
            "answers": ["A"] * count,
        }
        put(tmp_path, f"race/dev/middle/{file}.txt", json.dumps(article))
    with pytest.warns(UserWarning, match=r"race/dev: 1401 questions where the official file has 1436$"):
        race.examples("dev")


def test_the_files_of_a_segment(tmp_path):
    file = put(tmp_path, "glue_sst/train.tsv", "sentence\tlabel\na\t1\n")
    task = get_task("SST-2", tmp_path)
    assert (task.path("train"), task.files("train")) == (file, [file])
    with pytest.raises(BortError, match=r"no dev\.tsv in "):
        task.files("dev")


def test_classes_and_regression():
    assert get_task("MNLI").num_classes == 3
    assert not get_task("MNLI").is_regression
    assert get_task("STS-B").num_classes == 1
    assert get_task("STS-B").is_regression
    assert get_task("MNLI").segment_names("dev") == ("dev_matched", "dev_mismatched")
    assert get_task("AX").segment_names("train") == ()


@contextlib.contextmanager
def forbidden_folder(name):
    """A data root in which the folder ``name`` may not be looked into, by this process either."""
    with tempfile.TemporaryDirectory() as root:
        Path(root).chmod(0o755)
        folder = Path(root, name)
        folder.mkdir(parents=True)
        put(folder, "train.tsv", "sentence1\tsentence2\tlabel\na\tb\tentailment\n")
        put(folder, "1.txt", "{}")
        folder.chmod(0)
        is_root = os.geteuid() == 0
        if is_root:
            os.seteuid(65534)
        try:
            yield Path(root)
        finally:
            if is_root:
                os.seteuid(0)
            folder.chmod(0o755)


@pytest.mark.parametrize(("name", "folder", "place"), [("RTE", "glue/RTE", "train.tsv"), ("RACE-M", "race/train/middle", "")])
def test_what_may_not_be_looked_into_is_not_called_missing(name, folder, place):
    with forbidden_folder(folder) as root:
        task = get_task(name, root)
        for look in (task.is_present, task.path, task.files, task.examples):
            with pytest.raises(BortError) as caught:
                look("train")
            assert str(caught.value) == f"{root / folder / place}: Permission denied"
        state = inspect_segment(task, "train")
        assert (state.damage, state.size) == (str(caught.value), None)


def test_the_folder_of_a_task_is_the_official_one_under_its_root(tmp_path, monkeypatch):
    monkeypatch.setenv("MXNET_HOME", str(tmp_path))
    assert (get_task("SST").root, get_task("SST").folder) == (tmp_path / "datasets", tmp_path / "datasets/glue/SST-2")
    assert get_task("SST", "x").folder == Path("x/glue/SST-2")
