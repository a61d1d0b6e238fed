"""The benchmarks' own files, in both layouts of folders: all of them load, whole files in their official sizes."""

from __future__ import annotations

import json
import warnings
from collections import Counter

import pytest

from bort.errors import BortError
from bort.tasks import TASKS, get_task

WHOLE = {"CoLA", "MRPC", "STS-B", "RTE", "WNLI", "AX", "CB", "COPA", "SuperGLUE-RTE", "WiC", "WSC", "AX-b", "AX-g"}
"""Tasks of which every row is here; the files of the others are cut."""

SEGMENTS = [(task.name, segment.name) for task in TASKS for segment in task.segments]


@pytest.mark.parametrize("layout", ["official", "published"])
@pytest.mark.parametrize(("name", "segment_name"), SEGMENTS)
def test_files_load_whole_and_labelled(name, segment_name, layout, shared, tmp_path):
    root = shared / "data"
    task = get_task(name, root)
    if not task.is_present(segment_name):
        with pytest.raises(BortError, match=f"^{name}: no "):
            task.examples(segment_name)
        pytest.skip(f"{root / task.folders[0]} has no {task.segment(segment_name).file}")
    if layout == "published":
        folder = tmp_path / task.folders[-1]
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.symlink_to(root / task.folders[0], target_is_directory=True)
        task = get_task(name, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", ".*left out")
        examples = task.examples(segment_name)
    segment = task.segment(segment_name)
    assert len({example.id for example in examples}) == len(examples) or name == "ReCoRD"
    assert (segment.size(examples) == segment.official_size) == (
        name in WHOLE or (name, segment_name) in {("SST-2", "dev"), ("SST-2", "test")}
    )
    if segment.labelled:
        assert all(example.label is not None for example in examples)
        if not task.is_regression and name != "MNLI":
            assert set(Counter(example.label for example in examples)) == set(range(task.num_classes))


def lines(shared, path):
    file = shared / "data" / path
    if not file.is_file():
        pytest.skip(f"{file} is not here")
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(("segment", "file"), [("train", "train"), ("dev", "val"), ("test", "test")])
def test_multirc_is_its_answers_in_order(segment, file, shared):
    expected = [
        (
            (row["idx"], question["idx"], answer["idx"]),
            row["passage"]["text"],
            f"{question['question']} {answer['text']}",
            answer.get("label"),
        )
        for row in lines(shared, f"superglue/MultiRC/{file}.jsonl")
        for question in row["passage"]["questions"]
        for answer in question["answers"]
    ]
    examples = get_task("MultiRC", shared / "data").examples(segment)
    assert [(example.id, *example.texts, example.label) for example in examples] == expected


def test_record_dev_has_a_right_and_a_wrong_candidate_for_every_query(shared):
    rows = lines(shared, "superglue/ReCoRD/val.jsonl")
    examples = get_task("ReCoRD", shared / "data").examples("dev")
    assert list(dict.fromkeys(example.id for example in examples)) == [query["idx"] for row in rows for query in row["qas"]]
    answers = {query["idx"]: {answer["text"] for answer in query["answers"]} for row in rows for query in row["qas"]}
    for example in examples:
        assert set(example.answers) == answers[example.id]
        assert example.label == (example.candidate in answers[example.id])
        assert example.candidate in example.texts[1]
        assert "@placeholder" not in example.texts[1]
        assert "\n" not in example.texts[0]
    for query in answers:
        assert {example.label for example in examples if example.id == query} == {0, 1}


def test_diagnostic_sets_carry_labels_and_ids_written_as_text(shared):
    rows = lines(shared, "superglue/AX-b/AX-b.jsonl")
    assert isinstance(rows[0]["idx"], str)
    task = get_task("AX-b", shared / "data")
    examples = task.examples("test")
    assert [(example.id, task.labels[example.label]) for example in examples] == [(int(row["idx"]), row["label"]) for row in rows]


def test_race_is_the_articles_of_its_levels(shared):
    if not (shared / "data/race/dev").is_dir():
        pytest.skip(f"{shared / 'data/race'} is not here")
    high, middle, both = (get_task(name, shared / "data").examples("dev") for name in ("RACE-H", "RACE-M", "RACE"))
    assert both == high + middle
    files = get_task("RACE", shared / "data").files("dev")
    assert [example.id[0] for example in both if example.id[1] == 0] == [f"{file.parent.name}{file.name}" for file in files]
    assert [int(file.stem) for file in files[:20]] == sorted(int(file.stem) for file in files[:20])
