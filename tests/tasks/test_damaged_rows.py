"""Whatever stands in a file, a task reads it or names it: nothing but BortError leaves the reader, on one line and with the file's name."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bort.errors import BortError
from bort.tasks import TASKS, get_task

JSON_TASKS = [task.name for task in TASKS if task.benchmark != "GLUE"]

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from(
        [2**63, 10**400, -(10**400), 1e308, float("inf"), float("nan"), "9" * 6000, "٣", "0", "-1", "a\nb" * 50, "\ud800", "\0", ""]
    ),
    st.text(max_size=4),
    st.just([]),
    st.just({}),
    st.lists(st.integers(0, 2), max_size=3),
    st.dictionaries(st.sampled_from(["idx", "text", "label", "start"]), st.integers(0, 2), max_size=2),
)


def places(value, path=()):
    """Paths of everything inside a JSON value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inside:
        yield (*path, key)
        yield from places(item, (*path, key))


def own_rows(task):
    """The rows of the last labelled segment, or of the test segment, as JSON values."""
    segment = ([segment for segment in task.segments if segment.labelled] or task.segments)[-1]
    return segment.name, [json.loads(text) for file in task.files(segment.name) for text in file.read_text(encoding="utf-8").splitlines()]


def read(task, segment_name, content, folder):
    segment = task.segment(segment_name)
    place = folder / task.folders[0] / segment.file
    for part in segment.subfolders or ("",):
        file = place / part / "1.txt" if part else place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    try:
        examples = get_task(task.name, folder).examples(segment_name)
    except BortError as error:
        check_message(str(error), folder)
    else:
        assert examples
        for example in examples:
            assert all(text.encode("utf-8") is not None for text in example.texts)
            assert len(example.texts) == 2
            assert example.label is None or 0 <= example.label < task.num_classes


def check_message(message, folder):
    assert "\n" not in message
    assert str(folder) in message
    assert len(message) < 600


@pytest.mark.parametrize("name", JSON_TASKS)
@settings(
    derandomize=True, deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
def test_rows_with_one_thing_changed_are_read_or_named(name, data, repository, tmp_path):
    task = get_task(name, repository / "test_data")
    segment_name, rows = own_rows(task)
    row = copy.deepcopy(data.draw(st.sampled_from(rows)))
    *path, last = data.draw(st.sampled_from(list(places(row))))
    parent = row
    for key in path:
        parent = parent[key]
    if isinstance(parent, dict) and data.draw(st.booleans()):
        del parent[last]
    else:
        parent[last] = data.draw(VALUES)
    read(task, segment_name, json.dumps(row).encode(), tmp_path)


@pytest.mark.parametrize("name", ["MRPC", "QQP", "MNLI", "BoolQ", "MultiRC", "ReCoRD", "RACE-H"])
@settings(derandomize=True, deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=60) | st.text('[]{}":,0 \n\tabt', max_size=40).map(str.encode))
def test_any_bytes_are_read_or_named(name, content, tmp_path):
    task = get_task(name)
    read(task, task.segments[-1].name, content, tmp_path)


@pytest.mark.parametrize("name", JSON_TASKS)
@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a":' * 100_000, '{"idx": ' + "9" * 10_000 + "}", '{"idx": "' + "9" * 10_000 + '"}', "NaN", "{}", "null", "\\"],
)
def test_nesting_and_numbers_without_end_are_named(name, text, tmp_path):
    task = get_task(name)
    read(task, task.segments[0].name, text.encode(), tmp_path)


@pytest.mark.parametrize("name", [name for name in JSON_TASKS if not name.startswith("RACE")])
def test_an_idx_that_is_used_twice_is_named_with_both_lines(name, repository, tmp_path):
    task = get_task(name, repository / "test_data")
    segment_name, rows = own_rows(task)
    twice = json.dumps(rows[0])
    segment = task.segment(segment_name)
    file = tmp_path / task.folders[0] / segment.file
    file.parent.mkdir(parents=True)
    file.write_text(f"{twice}\n{json.dumps(rows[1])}\n{twice}\n")
    with pytest.raises(BortError, match=r", line 3.*: the id \d+ is that of .*, line 1.* too$"):
        get_task(name, tmp_path).examples(segment_name)
