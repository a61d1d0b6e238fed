"""ReCoRD's queries and candidates."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bort.errors import BortError
from bort.tasks import get_task

TEXT = "Ann met Bob\nand Ann saw Cy\n@highlight\nDi left"
NAMES = {"Ann": 0, "Bob": 8, "Cy": 24, "Di": 38}


def entities(*names):
    return [{"start": NAMES[name], "end": NAMES[name] + len(name) - 1} for name in names]


def query(number, *answers):
    return {"idx": number, "query": "Then @placeholder went.", "answers": [{"start": 0, "end": 0, "text": answer} for answer in answers]}


def row(*queries, names=("Di", "Bob", "Ann", "Ann", "Cy"), text=TEXT):
    return {"idx": 99, "passage": {"text": text, "entities": entities(*names)}, "qas": list(queries)}


def read(folder, *rows, segment="dev"):
    task = get_task("ReCoRD", folder)
    file = folder / task.folders[0] / task.segment(segment).file
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(json.dumps(item) for item in rows), encoding="utf-8")
    return task.examples(segment)


def test_each_distinct_entity_in_order_stands_for_the_placeholder(tmp_path):
    examples = read(tmp_path, row(query("5", "Bob", "Ann", "Bob"), query(6, "Cy")))
    assert [(example.id, example.candidate, example.label) for example in examples] == [
        *((5, name, label) for name, label in zip(("Ann", "Bob", "Cy", "Di"), (1, 1, 0, 0), strict=True)),
        *((6, name, label) for name, label in zip(("Ann", "Bob", "Cy", "Di"), (0, 0, 1, 0), strict=True)),
    ]
    assert examples[1].texts == ("Ann met Bob and Ann saw Cy @highlight Di left", "Then Bob went.")
    assert examples[0].answers == ("Bob", "Ann")
    assert {example.line for example in examples} == {1}
    # The text of a passage is held once, however many rows it has.
    assert len({id(example.texts[0]) for example in examples}) == 1


@pytest.mark.parametrize(
    ("answers", "candidates"),
    [
        ((), ()),
        (("Cy",), ("Cy", "Ann")),
        (("Di", "Bob"), ("Bob", "Ann", "Di", "Cy")),
        (("Di", "Bob", "Ann"), ("Ann", "Bob", "Di", "Cy")),
        (("Di", "Bob", "Ann", "Cy"), ("Ann", "Bob", "Cy", "Di")),
        (("Eve",), ()),
    ],
)
def test_training_rows_are_right_and_wrong_in_turn(answers, candidates, tmp_path):
    """As many of one as of the other; where right ones are more, all of them and then the wrong ones."""
    examples = read(tmp_path, row(query(1, *answers)), row(query(2, "Ann"), names=("Ann", "Bob")), segment="train")
    first = [example for example in examples if example.id == 1]
    assert [example.candidate for example in first] == list(candidates)
    assert [example.label for example in first] == [int(candidate in answers) for candidate in candidates]


@settings(derandomize=True, deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(st.sampled_from(sorted(NAMES)), min_size=1), st.sets(st.sampled_from([*sorted(NAMES), "Eve"]), min_size=1))
def test_training_rows_are_some_of_all_rows_and_balanced(tmp_path, names, answers):
    filler = row(query(0, "Ann"), names=("Ann", "Bob"))
    train = [example for example in read(tmp_path, filler, row(query(1, *answers), names=names), segment="train") if example.id]
    every = [example for example in read(tmp_path, filler, row(query(1, *answers), names=names)) if example.id]
    assert all(example in every for example in train)
    right, wrong = (sum(example.label == label for example in train) for label in (1, 0))
    all_right = sum(example.label for example in every)
    if all_right > len(every) - all_right:
        assert (right, wrong) == (all_right, len(every) - all_right)
    else:
        assert right == wrong == all_right


def test_queries_of_the_test_file_need_no_answers(tmp_path):
    unanswered = row({"idx": 3, "query": "Then @placeholder went."})
    examples = read(tmp_path, unanswered, segment="test")
    assert [(example.candidate, example.label, example.answers) for example in examples] == [
        (name, None, ()) for name in ("Ann", "Bob", "Cy", "Di")
    ]
    assert [example.label for example in read(tmp_path, row(query(3, "Cy")), segment="test")] == [0, 0, 1, 0]
    with pytest.raises(BortError, match=r'val\.jsonl, line 1, query 1: no list in the field "answers"'):
        read(tmp_path, unanswered)


def changed(change):
    item = copy.deepcopy(row(query(1, "Ann")))
    change(item)
    return item


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda item: item.pop("passage"), 'line 2: no field "passage"'),
        (lambda item: item["passage"].update(text=None), 'line 2, passage: no text in the field "text"'),
        (lambda item: item["passage"].update(entities=3), 'line 2, passage: no list in the field "entities"'),
        (lambda item: item["passage"].update(entities=[]), 'line 2, passage: nothing in the field "entities"'),
        (lambda item: item["passage"]["entities"].append([]), "line 2, passage, entity 6: not a JSON object"),
        (
            lambda item: item["passage"]["entities"][1].update(end=len(TEXT)),
            f"entity 2: characters 8 to {len(TEXT)} of a text that has {len(TEXT)}",
        ),
        (lambda item: item["passage"]["entities"][1].update(end=7), "entity 2: characters 8 to 7 of a text"),
        (lambda item: item["passage"]["entities"][1].update(start=-1), 'entity 2: the field "start" holds no whole number'),
        (lambda item: item["passage"]["entities"][1].update(start=0.0), 'entity 2: the field "start" holds no whole number'),
        (lambda item: item.update(qas=None), 'line 2: no list in the field "qas"'),
        (lambda item: item["qas"][0].update(query=1), 'line 2, query 1: no text in the field "query"'),
        (lambda item: item["qas"][0].update(idx=None), 'line 2, query 1: the field "idx" holds no whole number'),
        (lambda item: item["qas"][0].update(idx=0), "line 2, query 1: the id 0 is that of .*line 1, query 1 too"),
        (lambda item: item["qas"].append(query(1, "Bob")), "line 2, query 2: the id 1 is that of .*line 2, query 1 too"),
        (lambda item: item["qas"][0]["answers"].append("Ann"), "line 2, query 1, answer 2: not a JSON object"),
        (lambda item: item["qas"][0]["answers"].append({}), 'line 2, query 1, answer 2: no text in the field "text"'),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path, change, message):
    with pytest.raises(BortError, match=message) as caught:
        read(tmp_path, row(query(0, "Ann")), changed(change))
    assert str(caught.value).startswith(str(tmp_path / "superglue/ReCoRD/val.jsonl"))
    assert "\n" not in str(caught.value)
