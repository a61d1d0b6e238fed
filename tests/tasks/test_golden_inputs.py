"""Every task's texts, labels and input ids against those that the published code made of the same rows."""

from __future__ import annotations

import json

import pytest

from bort.tasks import get_task
from bort.tasks.encoding import encode_examples
from bort.tokenizer import Tokenizer

CASES = [
    f"{task}/{segment}"
    for task, segments in {
        **dict.fromkeys(("CB", "COPA", "WSC", "WiC", "RTE", "BoolQ"), ("train", "dev", "test")),
        **dict.fromkeys(("ReCoRD", "RACE-H", "RACE-M"), ("train", "dev")),
    }.items()
    for segment in segments
]


@pytest.fixture(scope="module")
def golden(shared):
    return json.loads((shared / "golden/published_task_inputs.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def roberta(shared):
    return Tokenizer.from_directory(shared / "data/vocab")


def ours(case, raw, roberta, folder):
    """(texts, label, ids) of every example that ``raw`` rows give in the file the task reads them from."""
    name, segment_name = case.split("/")
    task = get_task("SuperGLUE-RTE" if name == "RTE" else name, folder)
    segment = task.segment(segment_name)
    place = folder / task.folders[0] / segment.file
    if segment.subfolders:
        (level,) = segment.subfolders
        (place / level).mkdir(parents=True)
        for article in raw:
            (place / level / article["id"].removeprefix(level)).write_text(json.dumps(article), encoding="utf-8")
    else:
        place.parent.mkdir(parents=True)
        place.write_text("".join(json.dumps(row) + "\n" for row in raw), encoding="utf-8")
    examples = task.examples(segment_name)
    ids = encode_examples(examples, roberta, 128)
    return [(list(example.texts), example.label, row.tolist()) for example, row in zip(examples, ids, strict=True)]


def published(case):
    return [(item["fields"][:2], item["label"], item["input_ids"]) for item in case["examples"]]


def test_every_published_case_is_listed_here(golden):
    assert set(golden) == set(CASES)


@pytest.mark.parametrize("case", [case for case in CASES if case != "ReCoRD/dev"])
def test_texts_labels_and_ids_are_the_published_ones(case, golden, roberta, tmp_path):
    assert ours(case, golden[case]["raw"], roberta, tmp_path) == published(golden[case])


def test_record_dev_has_every_candidate_where_the_published_code_dropped_some(golden, roberta, tmp_path):
    case = golden["ReCoRD/dev"]
    rows = ours("ReCoRD/dev", case["raw"], roberta, tmp_path)
    assert len(rows) == sum(
        len({row["passage"]["text"][e["start"] : e["end"] + 1] for e in row["passage"]["entities"]}) for row in case["raw"]
    )
    assert all(row in rows for row in published(case))
    for label in (0, 1):
        kept = [row for row in rows if row in published(case) and row[1] == label]
        assert kept == [row for row in published(case) if row[1] == label]
    # It dropped wrong candidates alone.
    assert [row for row in rows if row[1] == 1] == [row for row in published(case) if row[1] == 1]
    assert len(rows) > 2 * len(published(case))
