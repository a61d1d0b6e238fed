"""bort submit as a user meets it: a zip, or everything that is wrong at once and no zip."""

from __future__ import annotations

import shutil
import zipfile

import pytest

from bort.cli import main
from bort.tasks.registry import TASKS, get_task

from ..tasks.test_submission import submit, submit_all
from .test_main import run_bort


@pytest.fixture
def data(repository):
    return repository / "test_data"


def test_a_complete_folder_of_runs_becomes_a_zip(data, tmp_path):
    submit_all("superglue", data, tmp_path / "runs")
    result = run_bort("submit", "superglue", "runs", "--data_root", data, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (0, "SuperGLUE: 10 files in superglue.zip\n")
    warnings = result.stderr.splitlines()
    assert len(warnings) == 10
    assert all(line.startswith("bort: warning: ") and "the official file has" in line for line in warnings)
    with zipfile.ZipFile(tmp_path / "superglue.zip") as archive:
        assert len(archive.namelist()) == 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs", "superglue.zip"]


def test_everything_that_is_wrong_is_said_at_once_and_an_older_zip_stays(data, tmp_path):
    runs = submit_all("glue", data, tmp_path / "runs")
    files = {path.name: path for path in runs.rglob("predictions/*")}
    files["CoLA.tsv"].unlink()
    files["RTE.tsv"].write_text(files["RTE.tsv"].read_text().replace("index\t", "id\t").replace("\n3\t", "\n33\t"))
    files["STS-B.tsv"].write_bytes(files["STS-B.tsv"].read_bytes().rsplit(b"\t", 1)[0] + b"\t6.000\n")
    (tmp_path / "glue.zip").write_text("an older one")
    result = run_bort("submit", "glue", "runs", "--data_root", data, "--output", "glue.zip", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    errors = [line.removeprefix("bort: error: ") for line in result.stderr.splitlines() if line.startswith("bort: error: ")]
    in_order = "write one row for each row of the test file, in its order"
    assert errors == [
        "CoLA.tsv: missing; bort finetune --task CoLA makes it, --fill_majority fills it in",
        'runs/STS-B/predictions/STS-B.tsv, line 17: the prediction is "6.000"; write a number from 0 to 5 with three decimals',
        'runs/RTE/predictions/RTE.tsv, line 1: the header is "id\\tprediction"; write index, a tab, prediction',
        f'runs/RTE/predictions/RTE.tsv, line 5: index "33" is not in the test file; {in_order}',
        f'runs/RTE/predictions/RTE.tsv: index "3" missing (1 in all); {in_order}',
        "GLUE: 5 problems, named above; nothing is written until there are none",
    ]
    assert (tmp_path / "glue.zip").read_text() == "an older one"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["glue.zip", "runs"]


def test_what_is_filled_is_printed_and_written_beside_the_zip(data, tmp_path):
    submit(get_task("RACE-H", data), tmp_path / "predictions")
    result = run_bort("submit", "race", ".", "--data_root", data, "--output", "out/race.zip", "--fill_majority", cwd=tmp_path)
    assert result.returncode == 0
    filled, made, remark = result.stdout.splitlines()
    assert filled.startswith("RACE-M.jsonl: no model's predictions; every answer is ")
    assert filled.endswith("training rows of RACE-M")
    assert made == "RACE: 2 files in out/race.zip"
    assert remark == "filled in, not predicted: 1 of 2; out/FILLED.txt says which"
    assert (tmp_path / "out/FILLED.txt").read_text() == f"race.zip: {filled}\n"
    with zipfile.ZipFile(tmp_path / "out/race.zip") as archive:
        assert archive.namelist() == ["RACE-H.jsonl", "RACE-M.jsonl"]


def test_a_folder_of_every_benchmark_serves_each(data, tmp_path, capsys):
    for task in TASKS:
        if task.name not in ("RACE-H", "RACE-M"):
            submit(get_task(task.name, data), tmp_path / "runs" / task.name / "predictions")
    for benchmark, count in (("glue", 11), ("superglue", 10), ("race", 1)):
        output = tmp_path / f"{benchmark}.zip"
        assert main(["submit", benchmark, str(tmp_path / "runs"), "--data_root", str(data), "--output", str(output)]) == 0
        assert f" {count} files in" in capsys.readouterr().out.replace("1 file ", "1 files ")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["glue", "nowhere"], "nowhere: no such folder; give one that holds prediction files, or runs of bort finetune"),
        (["glue", ""], "DIR is empty; give the folder that holds the prediction files"),
        (["glue", ".", "--output", "RTE.tsv"], '--output is "RTE.tsv"; give the name of a .zip'),
        (["glue", ".", "--output", ""], '--output is "."; give the name of a .zip'),
        (["squad", "."], "argument benchmark: invalid choice: 'squad'"),
        (["race", ".", "--output", "file/race.zip"], "a file stands where a folder is needed; give another path"),
    ],
)
def test_mistakes_are_one_line(arguments, error, data, tmp_path):
    submit(get_task("RACE", data), tmp_path)
    (tmp_path / "file").write_text("")
    result = run_bort("submit", *arguments, "--data_root", data, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    (line,) = [line for line in result.stderr.splitlines() if not line.startswith("bort: warning: ")]
    assert error in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["RACE.jsonl", "file"]


def test_notices_and_results_are_lines_whatever_the_folders_are_called(data, tmp_path):
    odd = tmp_path / "a\x1b[1m\u2028b"
    shutil.copytree(data / "race", odd / "race")
    submit(get_task("RACE", data), tmp_path / "runs")
    result = run_bort("submit", "race", tmp_path / "runs", "--data_root", odd, "--output", odd / "race.zip")
    assert result.returncode == 0
    assert r"a\x1b[1m\u2028b/race/test has" in result.stderr
    assert all(len(text.splitlines()) == 1 and text.rstrip("\n").isprintable() for text in (result.stdout, result.stderr))
