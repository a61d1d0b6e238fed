"""Submissions that are as they should be: what is written passes, the zip holds it, and what no model made is said openly."""

from __future__ import annotations

import collections
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from bort.errors import BortError
from bort.tasks.leaderboard import write_predictions
from bort.tasks.registry import TASKS, get_task
from bort.tasks.submission import check_submission, write_submission

GLUE = {"CoLA", "SST-2", "MRPC", "STS-B", "QQP", "MNLI-m", "MNLI-mm", "QNLI", "RTE", "WNLI", "AX"}
SUPERGLUE = {"BoolQ", "CB", "COPA", "MultiRC", "ReCoRD", "RTE", "WiC", "WSC", "AX-b", "AX-g"}


def submit(task, folder, seed=0):
    """The prediction files of a model that knows nothing."""
    rng = np.random.default_rng(seed)
    rows = {name: task.examples(name) for name in task.segment_names("test")}
    outputs = {name: rng.normal(2.5, 2.0, (len(rows[name]), task.num_classes)) for name in rows}
    return write_predictions(task, rows, {name: task.decide(rows[name], outputs[name]) for name in rows}, folder)


def submit_all(benchmark, data_root, folder, seed=0):
    """A folder of runs, one for each task of a benchmark; of RACE, one for both levels."""
    for task in TASKS:
        if task.benchmark.lower() == benchmark and task.name not in ("RACE-H", "RACE-M"):
            submit(get_task(task.name, data_root), folder / task.name / "predictions", seed)
    return folder


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
@pytest.mark.parametrize("data", ["test_data", "real"])
def test_what_is_written_for_a_task_passes(task, data, request, tmp_path):
    root = request.getfixturevalue("repository") / "test_data" if data == "test_data" else request.getfixturevalue("shared") / "data"
    task = get_task(task.name, root)
    if not all(task.is_present(name) for name in task.segment_names("test")):
        pytest.skip(f"{root} has no test rows of {task.name}")
    for seed in range(3):
        paths = submit(task, tmp_path, seed)
        submission = check_submission(task.benchmark, tmp_path, root)
        assert {path.name: path.read_bytes() for path in paths} == submission.files
        assert {problem.what for problem in submission.problems} <= {"missing"}
        assert not {problem.file for problem in submission.problems} & {path.name for path in paths}


@pytest.mark.parametrize(
    ("benchmark", "names"),
    [
        ("glue", {f"{name}.tsv" for name in GLUE}),
        ("superglue", {f"{name}.jsonl" for name in SUPERGLUE}),
        ("race", {"RACE.jsonl"}),
    ],
)
def test_a_zip_holds_the_files_at_its_top_and_is_the_same_each_time(benchmark, names, repository, tmp_path):
    runs = submit_all(benchmark, repository / "test_data", tmp_path / "runs")
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in sorted(runs.rglob("predictions/*"), reverse=True):
        shutil.copyfile(path, flat / path.name)
        os.utime(flat / path.name, (1e9, 1e9))
    for folder in (runs, flat):
        submission = check_submission(benchmark, folder, repository / "test_data")
        assert submission.problems == []
        write_submission(submission, tmp_path / f"out/{folder.name}.zip")
    with zipfile.ZipFile(tmp_path / "out/runs.zip") as archive:
        assert archive.testzip() is None
        assert archive.namelist() == sorted(names)
        assert all(archive.read(name) == (flat / name).read_bytes() for name in names)
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    assert (tmp_path / "out/runs.zip").read_bytes() == (tmp_path / "out/flat.zip").read_bytes()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["flat.zip", "runs.zip"]


def test_race_may_come_in_two_files(repository, tmp_path):
    for name in ("RACE-H", "RACE-M"):
        submit(get_task(name, repository / "test_data"), tmp_path / name / "predictions")
    submission = check_submission("RACE", tmp_path, repository / "test_data")
    assert (sorted(submission.files), submission.problems) == (["RACE-H.jsonl", "RACE-M.jsonl"], [])


def test_a_sample_of_the_test_rows_is_said_to_be_one(repository, tmp_path):
    submit(get_task("CoLA", repository / "test_data"), tmp_path)
    (notice,) = check_submission("GLUE", tmp_path, repository / "test_data").notices
    assert re.match(r"CoLA.tsv: .*test.tsv has 8 rows where the official file has 1063", notice)


def test_official_files_go_without_a_notice(shared, tmp_path):
    submit(get_task("RTE", shared / "data"), tmp_path)
    assert check_submission("GLUE", tmp_path, shared / "data").notices == []


def test_files_are_found_through_links_and_nowhere_else(repository, tmp_path):
    runs = submit_all("race", repository / "test_data", tmp_path / "elsewhere")
    (tmp_path / "chosen").mkdir()
    (tmp_path / "chosen/first").symlink_to(runs / "RACE")
    (tmp_path / "chosen/again").symlink_to(tmp_path / "chosen")
    submit(get_task("RACE", repository / "test_data"), tmp_path / "chosen/.killed.partial/predictions", seed=1)
    submit(get_task("RACE", repository / "test_data"), tmp_path / "chosen/notes", seed=2)
    submission = check_submission("race", tmp_path / "chosen", repository / "test_data")
    assert submission.problems == []
    assert submission.files == {"RACE.jsonl": (runs / "RACE/predictions/RACE.jsonl").read_bytes()}


def test_the_same_file_twice_is_one_file(repository, tmp_path):
    for run in ("a", "b"):
        submit(get_task("RACE", repository / "test_data"), tmp_path / run / "predictions")
    assert check_submission("race", tmp_path, repository / "test_data").problems == []


def majority(lines):
    """Label of most training rows, and how many have it, found without the readers."""
    return collections.Counter(lines).most_common(1)[0]


def test_missing_files_are_filled_with_the_majority_and_named(repository, tmp_path):
    root = repository / "test_data"
    submit(get_task("CoLA", root), tmp_path / "runs")
    submission = check_submission("glue", tmp_path / "runs", root, fill_majority=True)
    assert submission.problems == []
    assert set(submission.filled) == {f"{name}.tsv" for name in GLUE - {"CoLA"}}
    rte = [line.split("\t")[3] for line in (root / "glue/RTE/train.tsv").read_text().splitlines()[1:]]
    mnli = [line.split("\t")[-1] for line in (root / "glue/MNLI/train.tsv").read_text().splitlines()[1:]]
    scores = [float(line.split("\t")[9]) for line in (root / "glue/STS-B/train.tsv").read_text().splitlines()[1:]]
    expected = {
        "RTE.tsv": {majority(rte)[0]},
        "STS-B.tsv": {f"{sum(scores) / len(scores):.3f}"},
    }
    # A tie may go either way here, but the same way for the diagnostic set as for the task that it is predicted by.
    tied = {label for label, count in collections.Counter(mnli).items() if count == majority(mnli)[1]}
    answers = {name: {line.split("\t")[1] for line in contents.decode().splitlines()[1:]} for name, contents in submission.files.items()}
    assert {name: answers[name] for name in expected} == expected
    assert answers["MNLI-m.tsv"] == answers["MNLI-mm.tsv"] == answers["AX.tsv"]
    assert len(answers["AX.tsv"]) == 1
    assert answers["AX.tsv"] <= tied
    assert submission.filled["RTE.tsv"] == f"{majority(rte)[0]}, the label of {majority(rte)[1]} of the {len(rte)} training rows of RTE"
    assert submission.filled["AX.tsv"].endswith(f"of the {len(mnli)} training rows of MNLI")
    assert submission.filled["STS-B.tsv"].endswith(f"the mean of the {len(scores)} training rows of STS-B")


def test_what_is_filled_passes_its_own_check(repository, tmp_path):
    root = repository / "test_data"
    for benchmark, name in (("glue", "WNLI"), ("superglue", "CB"), ("race", "RACE-M")):
        submit(get_task(name, root), tmp_path / benchmark)
        first = check_submission(benchmark, tmp_path / benchmark, root, fill_majority=True)
        for file, contents in first.files.items():
            (tmp_path / benchmark / file).write_bytes(contents)
        second = check_submission(benchmark, tmp_path / benchmark, root)
        assert (second.problems, second.files, second.filled) == ([], first.files, {})
    assert set(first.filled) == {"RACE-H.jsonl"}


def test_superglue_is_filled_in_its_own_forms(repository, tmp_path):
    root = repository / "test_data"
    submit(get_task("CB", root), tmp_path)
    submission = check_submission("superglue", tmp_path, root, fill_majority=True)
    lines = {name: [json.loads(line) for line in contents.splitlines()] for name, contents in submission.files.items()}
    labels = [
        answer["label"]
        for line in (root / "superglue/MultiRC/train.jsonl").read_text().splitlines()
        for question in json.loads(line)["passage"]["questions"]
        for answer in question["answers"]
    ]
    filled = {answer["label"] for line in lines["MultiRC.jsonl"] for q in line["passage"]["questions"] for answer in q["answers"]}
    assert filled == {int(2 * sum(labels) > len(labels))}
    assert {line["label"] for line in lines["AX-b.jsonl"]} == {line["label"] for line in lines["AX-g.jsonl"]}
    assert {line["label"] for line in lines["RTE.jsonl"]} == {line["label"] for line in lines["AX-g.jsonl"]}
    assert lines["ReCoRD.jsonl"][0]["label"] == min(row.candidate for row in get_task("ReCoRD", root).examples("test") if row.id == 0)
    assert "training rows of SuperGLUE-RTE" in submission.filled["AX-g.jsonl"]
    assert {type(line["label"]) for line in lines["COPA.jsonl"]} == {int}


def test_without_the_training_file_nothing_is_guessed(repository, tmp_path):
    shutil.copytree(repository / "test_data/race", tmp_path / "data/race", ignore=lambda folder, names: {"train"} & set(names))
    submit(get_task("RACE-H", tmp_path / "data"), tmp_path / "runs")
    submission = check_submission("race", tmp_path / "runs", tmp_path / "data", fill_majority=True)
    (problem,) = submission.problems
    assert problem.file == "RACE-M.jsonl"
    assert problem.what.startswith("cannot be filled without the training file: RACE-M: no train/middle/*.txt in")
    assert "; fetch it with bort tasks download RACE-M, or name the folder" in problem.what
    assert set(submission.files) == {"RACE-H.jsonl"}
    with pytest.raises(BortError, match="1 problem"):
        write_submission(submission, tmp_path / "race.zip")
    assert not (tmp_path / "race.zip").exists()


def test_nothing_is_not_completed(repository, tmp_path):
    submission = check_submission("glue", tmp_path, repository / "test_data", fill_majority=True)
    assert submission.problems[0].what == "no prediction file of GLUE to complete"
    assert (submission.files, submission.filled) == ({}, {})


def test_the_note_follows_the_zips_beside_it(repository, tmp_path):
    root, note = repository / "test_data", tmp_path / "out/FILLED.txt"
    submit(get_task("CB", root), tmp_path / "superglue")
    submit(get_task("RACE-H", root), tmp_path / "race")
    for benchmark in ("superglue", "race"):
        submission = check_submission(benchmark, tmp_path / benchmark, root, fill_majority=True)
        write_submission(submission, tmp_path / f"out/{benchmark}.zip")
        with zipfile.ZipFile(tmp_path / f"out/{benchmark}.zip") as archive:
            assert "FILLED.txt" not in archive.namelist()
    lines = note.read_text().splitlines()
    assert [line.split(": ")[:2] for line in lines if line.startswith("race.zip")] == [["race.zip", "RACE-M.jsonl"]]
    assert len([line for line in lines if line.startswith("superglue.zip")]) == 9
    # A complete zip takes the place of a filled one, and then there is nothing more to say of it.
    submit(get_task("RACE-M", root), tmp_path / "race")
    write_submission(check_submission("race", tmp_path / "race", root), tmp_path / "out/race.zip")
    assert note.read_text().splitlines() == [line for line in lines if line.startswith("superglue.zip")]
    submit_all("superglue", root, tmp_path / "whole")
    write_submission(check_submission("superglue", tmp_path / "whole", root), tmp_path / "out/superglue.zip")
    assert not note.exists()


def test_where_no_zip_can_be_written_there_is_no_note(repository, tmp_path):
    root = repository / "test_data"
    submit(get_task("RACE-H", root), tmp_path / "race")
    (tmp_path / "out/race.zip").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        write_submission(check_submission("race", tmp_path / "race", root, fill_majority=True), tmp_path / "out/race.zip")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["race.zip"]


def test_no_such_benchmark_and_no_such_folder(tmp_path):
    with pytest.raises(BortError, match='no benchmark "squad"; there are GLUE, SuperGLUE, RACE'):
        check_submission("squad", tmp_path)
    with pytest.raises(BortError, match="no such folder"):
        check_submission("glue", tmp_path / "runs")


KILLED_AT_THE_RENAME = """
import os, sys
from bort.tasks.submission import check_submission, write_submission
submission = check_submission("race", sys.argv[1], sys.argv[2], fill_majority=True)
sys.addaudithook(lambda event, arguments: os._exit(9) if event == "os.rename" and str(arguments[1]).endswith("race.zip") else None)
write_submission(submission, sys.argv[3])
"""


def test_a_process_killed_before_the_zip_is_replaced_leaves_a_note_of_both(repository, tmp_path):
    root, note, output = repository / "test_data", tmp_path / "out/FILLED.txt", tmp_path / "out/race.zip"
    submit(get_task("RACE-H", root), tmp_path / "first")
    write_submission(check_submission("race", tmp_path / "first", root, fill_majority=True), output)
    old, contents = note.read_text(), output.read_bytes()
    submit(get_task("RACE-M", root), tmp_path / "second")
    command = [sys.executable, "-c", KILLED_AT_THE_RENAME, tmp_path / "second", root, output]
    assert subprocess.run(command, check=False).returncode == 9
    assert output.read_bytes() == contents
    assert note.read_text().startswith(old)
    assert [line.split(": ")[1] for line in note.read_text().splitlines()] == ["RACE-M.jsonl", "RACE-H.jsonl"]


def test_the_note_has_one_line_for_a_zip_of_any_name(repository, tmp_path):
    root = repository / "test_data"
    submit(get_task("RACE-H", root), tmp_path / "race")
    submission = check_submission("race", tmp_path / "race", root, fill_majority=True)
    for _ in range(2):
        write_submission(submission, tmp_path / "o7\udcff\n.zip")
    (line,) = (tmp_path / "FILLED.txt").read_text().splitlines()
    assert line.startswith("o7\\udcff\\n.zip: RACE-M.jsonl: ")
