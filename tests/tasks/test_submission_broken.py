"""Submissions that a leaderboard would refuse: each is refused here first, with its own reason, and leaves no zip."""

from __future__ import annotations

import json
import os
import random
import shutil

import pytest

from bort.cli import main
from bort.tasks.registry import get_task
from bort.tasks.submission import check_submission
from bort.tasks.submission_checks import Problem, check_predictions

from .test_submission import submit, submit_all

IN_ORDER = "write one row for each row of the test file, in its order"
PLAIN = "write the file as UTF-8 without a byte-order mark, lines ending in a line feed"
AGAIN = "write it again with bort predict"
TABLE_ROW = "write the index, a tab and the prediction"
SCORE = "write a number from 0 to 5 with three decimals"
ENTAILMENT = "write one of not_entailment, entailment"
OBJECT = 'write one object with "idx" and "label"'
LETTERS = 'write one of "A", "B", "C", "D"'


def flat_folder(benchmark, data_root, folder):
    """A folder with all prediction files of a benchmark."""
    runs = submit_all(benchmark, data_root, folder.with_name("runs"))
    folder.mkdir()
    for path in runs.rglob("predictions/*"):
        path.rename(folder / path.name)
    return folder


def cells(row, index=None, prediction=None):
    """Change a row of a table; row 0 is the header."""

    def edit(contents):
        lines = contents.split(b"\n")
        old = lines[row].split(b"\t")
        lines[row] = b"\t".join([index or old[0], prediction or old[1]])
        return b"\n".join(lines)

    return edit


def lines(change):
    """Change the list of lines, each with its line feed."""

    def edit(contents):
        rows = contents.splitlines(keepends=True)
        change(rows)
        return b"".join(rows)

    return edit


def line(number, text):
    """Put ``text`` in the place of a line, from 1."""
    return lines(lambda rows: rows.__setitem__(number - 1, text + b"\n"))


def values(number, change):
    """Change the object on a line, from 1."""

    def edit(rows):
        value = json.loads(rows[number - 1])
        change(value)
        rows[number - 1] = json.dumps(value).encode() + b"\n"

    return lines(edit)


def fields(number, **new):
    return values(number, lambda value: value.update(new))


def swap(first, second):
    def change(rows):
        rows[first], rows[second] = rows[second], rows[first]

    return change


def assert_refused(benchmark, file, edit, reasons, repository, tmp_path, capsys):
    """Change one file of a complete submission, and see it refused with these reasons alone and without a zip."""
    path = flat_folder(benchmark, repository / "test_data", tmp_path / "files") / file
    contents = path.read_bytes()
    path.write_bytes(edit(contents))
    assert path.read_bytes() != contents
    output = tmp_path / "out/glue.zip"
    assert main(["submit", benchmark, str(tmp_path / "files"), "--data_root", str(repository / "test_data"), "--output", str(output)]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("bort: error: ")]
    assert "named above; nothing is written" in errors.pop()
    assert all(error.startswith(f"bort: error: {path}") for error in errors)
    if reasons is None:
        assert len(errors) == 1
        assert "not JSON: Exceeds the limit" in errors[0]
    else:
        first, last = contents.split(b"\n")[1].decode(), contents.decode().split("\t")[-1]
        count = len(json.loads(contents.split(b"\n")[0])["answers"]) if benchmark == "race" else 0
        rows = get_task("ReCoRD", repository / "test_data").examples("test")
        entities = [json.dumps(row.candidate) for row in rows if row.id == rows[0].id]
        known = {"{entities}": f"{len(entities)}: {', '.join(entities[:3])}{', …' if len(entities) > 3 else ''}"} | {
            "{header}": json.dumps(first),
            "{cut}": json.dumps(last[:-3]),
            "{fewer}": str(count - 1),
            "{count}": str(count),
        }
        for name, value in known.items():
            reasons = [reason.replace(name, value) for reason in reasons]
        assert [error.removeprefix(f"bort: error: {path}") for error in errors][: len(reasons)] == reasons
        # UTF-16 makes every line unreadable; all the others have one fault and no more is said of them.
        assert len(errors) == len(reasons) or contents.decode().encode("utf-16-le") == path.read_bytes()
    assert not output.parent.exists()


def test_a_missing_last_line_feed_is_no_fault(repository, tmp_path):
    for file, benchmark in (("CoLA.tsv", "glue"), ("CB.jsonl", "superglue")):
        (path,) = submit(get_task(file.partition(".")[0], repository / "test_data"), tmp_path / "runs")
        contents = path.read_bytes().removesuffix(b"\n")
        path.unlink()
        (tmp_path / file).write_bytes(contents)
        assert check_submission(benchmark, tmp_path, repository / "test_data").files == {file: contents}


def test_exchanged_files_of_mnli_are_caught_where_they_differ(repository, tmp_path):
    shutil.copytree(repository / "test_data/glue/MNLI", tmp_path / "data/glue/MNLI")
    test = tmp_path / "data/glue/MNLI/test_matched.tsv"
    test.write_bytes(b"".join(test.read_bytes().splitlines(keepends=True)[:-1]))
    matched, mismatched = submit(get_task("MNLI", tmp_path / "data"), tmp_path / "runs")
    assert not {"MNLI-m.tsv", "MNLI-mm.tsv"} & {
        problem.file for problem in check_submission("glue", tmp_path / "runs", tmp_path / "data").problems
    }
    contents = matched.read_bytes()
    matched.write_bytes(mismatched.read_bytes())
    mismatched.write_bytes(contents)
    problems = [
        str(problem) for problem in check_submission("glue", tmp_path / "runs", tmp_path / "data").problems if problem.what != "missing"
    ]
    assert problems == [
        f"{matched}: 8 rows where the test file has 7; {IN_ORDER}",
        f'{matched}, line 9: index "7" is not in the test file; {IN_ORDER}',
        f"{mismatched}: 7 rows where the test file has 8; {IN_ORDER}",
        f'{mismatched}: index "7" missing (1 in all); {IN_ORDER}',
    ]


def problems_of(benchmark, folder, repository):
    return [str(problem) for problem in check_submission(benchmark, folder, repository / "test_data").problems]


def test_two_files_of_one_name_that_differ(repository, tmp_path):
    (first,) = submit(get_task("RACE", repository / "test_data"), tmp_path / "a/predictions")
    (second,) = submit(get_task("RACE", repository / "test_data"), tmp_path / "b/predictions", seed=1)
    assert problems_of("race", tmp_path, repository) == [
        f"{second}: differs from {first}; remove all but one, or give the folder of the run you mean"
    ]


def test_race_whole_and_in_levels(repository, tmp_path):
    for name in ("RACE", "RACE-H"):
        submit(get_task(name, repository / "test_data"), tmp_path)
    assert problems_of("race", tmp_path, repository) == [
        f"{tmp_path}/RACE.jsonl: stands beside RACE-H.jsonl, for the same questions; remove either, or give the folder of the run you mean"
    ]


def test_missing_files_are_all_named(repository, tmp_path):
    submit(get_task("SST-2", repository / "test_data"), tmp_path)
    (tmp_path / "SST-2.tsv").rename(tmp_path / "sst-2.tsv")
    problems = problems_of("glue", tmp_path, repository)
    assert len(problems) == 11
    assert f"SST-2.tsv: missing; rename {tmp_path}/sst-2.tsv" in problems
    assert "MNLI-mm.tsv: missing; bort finetune --task MNLI makes it, --fill_majority fills it in" in problems
    assert "AX.tsv: missing; bort predict --checkpoint DIR --task AX makes it with a model of MNLI, --fill_majority fills it in" in problems
    assert problems_of("race", tmp_path, repository) == [
        "RACE.jsonl: missing; bort finetune --task RACE makes it, --fill_majority fills it in"
    ]
    submit(get_task("RACE-M", repository / "test_data"), tmp_path)
    (problem,) = problems_of("race", tmp_path, repository)
    assert problem.startswith("RACE-H.jsonl: missing; bort finetune --task RACE-H makes it")


def test_a_missing_test_file_says_how_to_get_it(repository, tmp_path):
    submit(get_task("RACE", repository / "test_data"), tmp_path)
    problems = [str(problem) for problem in check_submission("race", tmp_path, tmp_path / "nowhere").problems]
    assert len(problems) == 1
    assert problems[0].startswith("RACE.jsonl: cannot be checked without the test file: RACE: no test/high/*.txt in ")
    assert "; fetch it with bort tasks download RACE, or name the folder that holds race with --data_root;" in problems[0]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_named(repository, tmp_path):
    submit(get_task("RACE", repository / "test_data"), tmp_path / "files")
    (tmp_path / "files/RACE.jsonl").chmod(0)
    (tmp_path / "files/run").mkdir(mode=0)
    try:
        assert problems_of("race", tmp_path / "files", repository) == [
            f"{tmp_path}/files/run: cannot be read: Permission denied; give a folder that you may read",
            f"{tmp_path}/files/RACE.jsonl: cannot be read: Permission denied; give files that you may read",
        ]
    finally:
        (tmp_path / "files/run").chmod(0o700)


def test_many_faults_are_counted_after_twenty(repository):
    task = get_task("STS-B", repository / "test_data")
    rows = task.examples("test")
    contents = "index\tprediction\n" + "".join(f"{len(rows) - row}\tgood\n" for row in range(len(rows)))
    problems = check_predictions(task, rows, contents.encode(), "STS-B.tsv")
    faults = len(rows) + 2
    assert faults <= 20
    assert len(problems) == faults
    problems = check_predictions(task, rows, contents.replace("\n", "\n0\t7\n").encode(), "STS-B.tsv")
    assert [problem.line for problem in problems] == [*range(2, 22), None]
    assert problems[-1].what.endswith(" more problems")
    assert int(problems[-1].what.split()[0]) > len(rows)


def test_a_name_with_a_line_feed_stays_on_one_line(repository):
    task = get_task("CoLA", repository / "test_data")
    (problem,) = check_predictions(task, task.examples("test"), b"", "a\nb/CoLA.tsv")
    assert str(problem) == f"a\\nb/CoLA.tsv: an empty file; {AGAIN}"


@pytest.mark.parametrize("name", ["STS-B", "MNLI", "CB", "MultiRC", "ReCoRD", "RACE"])
def test_damage_is_found_or_harmless(name, repository, tmp_path):
    """Whatever bytes a file holds, judging it ends; and what passes has the rows and the labels of the test file to any other reader."""
    task = get_task(name, repository / "test_data")
    segment = task.segment(task.segment_names("test")[0])
    rows = task.examples(segment.name)
    original = submit(task, tmp_path)[0].read_bytes()
    generator = random.Random(name)
    outcomes = {True: 0, False: 0}
    for _ in range(500):
        contents = bytearray(original)
        for _ in range(generator.choice([1, 1, 1, 3])):
            at = generator.randrange(len(contents))
            # Bytes of the file itself make damage that is hard to see.
            new = bytes(generator.choice([[], [generator.randrange(256)], [generator.choice(original)], list(original[at : at + 40]) * 2]))
            contents[at : at + generator.choice([0, 1, 1, 10])] = new
        passes = not check_predictions(task, rows, bytes(contents), "file")
        outcomes[passes] += 1
        if passes:
            assert shape(task, bytes(contents)) == shape(task, original)
    assert outcomes[False] > 250


def shape(task, contents):
    """What must not change: everything but the answers, which are checked here to be of the right kind."""
    if is_table(task):
        table = [line.split("\t") for line in contents.decode().splitlines()]
        assert all(0 <= float(cell) <= 5 if task.is_regression else cell in task.labels for _, cell in table[1:])
        return [index for index, _ in table]
    result = []
    for text in contents.splitlines():
        value = json.loads(text)
        if task.name == "MultiRC":
            answers = [(q["idx"], a["idx"], a["label"] in (0, 1)) for q in value["passage"]["questions"] for a in q["answers"]]
        elif task.name == "RACE":
            answers = [letter in "ABCD" and len(letter) == 1 for letter in value["answers"]]
        else:
            answers = [isinstance(value["label"], str) and (task.name == "ReCoRD" or value["label"] in task.labels)]
        result.append((value.get("idx", value.get("id")), answers))
    return result


def is_table(task):
    return task.benchmark == "GLUE"


@pytest.mark.parametrize("fill", [False, True])
def test_a_name_in_another_case_is_to_be_renamed_and_never_filled(repository, tmp_path, fill):
    for name in ("CoLA", "RTE"):
        submit(get_task(name, repository / "test_data"), tmp_path)
    (tmp_path / "RTE.tsv").rename(tmp_path / "RTE.TSV")
    submission = check_submission("glue", tmp_path, repository / "test_data", fill_majority=fill)
    assert f"RTE.tsv: missing; rename {tmp_path}/RTE.TSV" in [str(problem) for problem in submission.problems]
    assert len(submission.problems) == (1 if fill else 10)
    assert "RTE.tsv" not in submission.files


@pytest.mark.parametrize("make", [lambda path: path.symlink_to("nowhere"), os.mkfifo, os.mkdir], ids=["link", "pipe", "folder"])
def test_a_name_that_is_no_file_is_neither_missing_nor_filled(repository, tmp_path, make):
    submit(get_task("CoLA", repository / "test_data"), tmp_path)
    make(tmp_path / "RTE.tsv")
    submission = check_submission("glue", tmp_path, repository / "test_data", fill_majority=True)
    assert [str(problem) for problem in submission.problems] == [
        f"{tmp_path}/RTE.tsv: not a regular file; put the prediction file in its place, or remove it"
    ]
    assert "RTE.tsv" not in submission.files


def test_a_score_has_no_zeros_in_front(repository):
    task = get_task("STS-B", repository / "test_data")
    rows = task.examples("test")
    contents = "index\tprediction\n" + "".join(f"{row}\t0.979\n" for row in range(len(rows)))
    assert check_predictions(task, rows, contents.encode(), "STS-B.tsv") == []
    (problem,) = check_predictions(task, rows, contents.replace("0.979", "00.979", 1).encode(), "STS-B.tsv")
    assert problem.what == 'the prediction is "00.979"'


def test_nothing_in_a_problem_steers_a_terminal():
    assert str(Problem("a\x1b]0;x\x07", 3, "\u2028é", "\r")) == r"a\x1b]0;x\x07, line 3: \u2028é; \r"
