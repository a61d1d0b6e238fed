"""``bort tasks`` as a user meets it: lists, a close look, downloads."""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import sys
import zipfile

import pytest

from bort.cli import main
from bort.tasks import TASKS, inventory
from bort.tasks.download import SOURCES
from bort.tasks.sources import Source

CB_PATH = "glue/superglue/data/v2/CB.zip"


def rows(count, first=0, label="neutral"):
    return "".join(json.dumps({"premise": "p", "hypothesis": "h", "label": label, "idx": first + number}) + "\n" for number in range(count))


def put(root, path, text):
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text, encoding="utf-8")


def listed(tmp_path, *arguments):
    """The JSON list, by task and segment."""
    assert main(["tasks", *arguments, "--data_root", str(tmp_path), "--json", str(tmp_path / "list.json")]) == 0
    tasks = json.loads((tmp_path / "list.json").read_text(encoding="utf-8"))
    return {(task["task"], segment["name"]): segment for task in tasks for segment in task["segments"]}


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A folder with one archive, whose digest is taken for the official one."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number, name in enumerate(("train", "val", "test")):
            archive.writestr(f"CB/{name}.jsonl", rows(3, 10 * number))
    path = tmp_path / "mirror" / CB_PATH
    path.parent.mkdir(parents=True)
    path.write_bytes(buffer.getvalue())
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    url = SOURCES["superglue/CB"][0].url
    monkeypatch.setitem(SOURCES, "superglue/CB", (Source(url, len(buffer.getvalue()), digest),))
    monkeypatch.setenv("BORT_DATA_MIRROR", str(tmp_path / "mirror"))
    return digest


def test_help_shows_each_use_on_a_line_of_its_own(capsys):
    with pytest.raises(SystemExit):
        main(["tasks", "--help"])
    text = capsys.readouterr().out
    for use in ("bort tasks  ", "bort tasks NAME...  ", "bort tasks download NAME...  ", "bort tasks scores DIR...  "):
        assert text.count(f"\n  {use}") == 1
    assert "(default: [])" not in text


def test_every_task_is_listed_with_what_is_there(tmp_path, capsys):
    put(tmp_path, "superglue/CB/train.jsonl", rows(7))
    put(tmp_path, "glue_rte/dev.tsv", "sentence1\tsentence2\tlabel\na\tb\tentailment\nc\td\tperhaps\n")
    segments = listed(tmp_path)
    assert set(segments) == {(task.name, segment.name) for task in TASKS for segment in task.segments}
    assert [segments["CB", name]["size"] for name in ("train", "dev", "test")] == [7, None, None]
    assert segments["CB", "train"]["official_size"] == 250
    assert (
        segments["RTE", "dev"]["damage"] == f'{tmp_path}/glue_rte/dev.tsv, line 3: label "perhaps" is not one of not_entailment, entailment'
    )
    out = capsys.readouterr().out
    assert re.search(r"CB +│ SuperGLUE │ train +│ train.jsonl +│ +250 │ +7 │ neutral, entailment", out)
    assert re.search(r"│ dev +│ val.jsonl +│ +56 │ +– │", out)
    assert re.search(r"│ dev +│ dev.tsv +│ +277 │ +damaged │", out)
    assert f"damaged: {tmp_path}/glue_rte/dev.tsv, line 3: label" in out
    assert all(re.search(rf"│ {re.escape(task.name)} ", out) for task in TASKS)


def test_large_files_are_counted_in_a_list_and_read_when_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(inventory, "_READ_WHOLE", 1000)
    put(tmp_path, "superglue/CB/train.jsonl", rows(40) + rows(1, 40, "maybe").strip())
    put(tmp_path, "glue/RTE/train.tsv", "sentence1\tsentence2\tlabel\n" + "a\tb\tentailment\n" * 100)
    put(tmp_path, "glue/CoLA/train.tsv", "x\t1\t\ttext\n" * 200)
    segments = listed(tmp_path)
    assert [segments[name, "train"]["size"] for name in ("CB", "RTE", "CoLA")] == [41, 100, 200]
    assert not any(segments[name, "train"]["rows_read"] for name in ("CB", "RTE", "CoLA"))
    assert "≈ 41" in capsys.readouterr().out
    assert 'label "maybe" is not one of' in listed(tmp_path, "CB")["CB", "train"]["damage"]
    assert listed(tmp_path, "RTE")["RTE", "train"]["rows_read"]


def test_a_file_that_is_nearly_official_is_noted(tmp_path, capsys):
    put(tmp_path, "superglue/CB/val.jsonl", rows(55))
    assert listed(tmp_path, "--benchmark", "superglue")["CB", "dev"]["notes"] == [
        f"{tmp_path}/superglue/CB/val.jsonl: 55 rows where the official file has 56"
    ]
    assert "55 rows where the official file has 56" in capsys.readouterr().out


def test_a_file_that_cannot_be_read_does_not_end_the_list(tmp_path):
    put(tmp_path, "superglue/CB/train.jsonl", "{\n")
    (tmp_path / "superglue/CB/val.jsonl").write_bytes(b"\xff\xfe\n")
    (tmp_path / "superglue/CB/test.jsonl").write_bytes(b"")
    segments = listed(tmp_path)
    assert "not JSON" in segments["CB", "train"]["damage"]
    assert "not UTF-8" in segments["CB", "dev"]["damage"]
    assert "no rows" in segments["CB", "test"]["damage"]


def test_one_task_closely(tmp_path, capsys):
    put(tmp_path, "superglue_cb/train.jsonl", rows(3))
    assert main(["tasks", "cb", "mnli", "--data_root", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    for text in (
        f"{tmp_path}/superglue/CB (not there)",
        f"{tmp_path}/superglue_cb  ",
        "fields premise, hypothesis; label in label",
        "columns sentence1, sentence2; label in gold_label",
        "0 neutral, 1 entailment, 2 contradiction",
        "accuracy, macro_f1",
        "test → CB.jsonl",
        "test_matched → MNLI-m.tsv, test_mismatched → MNLI-mm.tsv",
        "https://dl.fbaipublicfiles.com/glue/superglue/data/v2/CB.zip",
        "its model labels  AX",
    ):
        assert re.search(re.escape(text).replace(r"\ \ ", " +"), out), text


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_every_task_can_be_looked_at(tmp_path, capsys, task):
    assert main(["tasks", task.name, "--data_root", str(tmp_path)]) == 0
    assert task.metrics[0] in capsys.readouterr().out


def test_downloads_say_what_they_did(tmp_path, capsys, mirror):
    root = tmp_path / "root"
    command = ["tasks", "download", "CB", "--data_root", str(root)]
    assert main(command) == 0
    out, err = capsys.readouterr()
    size = (tmp_path / "mirror" / CB_PATH).stat().st_size
    assert out == (f"CB: {tmp_path}/mirror/{CB_PATH}, {size} bytes, SHA-256 {mirror} (the official one)\nCB: in {root}/superglue/CB\n")
    assert err == ""
    assert main(command) == 0
    assert capsys.readouterr().out == f"CB: complete already; to fetch it again, move its files out of {root}/superglue/CB first\n"
    assert listed(root, "CB")["CB", "train"]["size"] == 3
    put(root, "superglue/CB/train.jsonl", rows(2))
    (root / "superglue/CB/val.jsonl").unlink()
    capsys.readouterr()
    assert main(["tasks", "CB", "--data_root", str(root)]) == 0
    assert re.search(r"changed since the download +train.jsonl, val.jsonl", capsys.readouterr().out)
    assert main(command) == 0
    assert "bort: warning: CB: kept as they were: test.jsonl, train.jsonl; move them away" in capsys.readouterr().err
    assert (root / "superglue/CB/train.jsonl").read_text() == rows(2)


def test_a_benchmark_stops_at_the_first_task_that_cannot_be_had(tmp_path, capsys, mirror):
    assert main(["tasks", "download", "CB", "CB", "--benchmark", "race", "--data_root", str(tmp_path / "root")]) == 2
    out, err = capsys.readouterr()
    assert out.count("CB: in ") == 1
    assert err.startswith(f"bort: error: {tmp_path}/mirror/~glai1/data/race/RACE.tar.gz: no such file; BORT_DATA_MIRROR is")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("download", "nothing to download; name tasks"),
        ("download CB --json x", "--json is for lists"),
        ("scores", "scores needs folders of runs"),
        ("scores nowhere", "nowhere: no such folder"),
        ("scores bort", "no result.json in bort; a run of bort finetune writes it"),
        ("download XY", 'no task "XY"; there are CoLA'),
        ("XY", 'no task "XY"; there are CoLA'),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path, capsys, arguments, reason):
    assert main(["tasks", *arguments.split(), "--data_root", str(tmp_path / "root")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(rf"bort: error: {re.escape(reason)}.*\n", err)
    assert not (tmp_path / "root").exists()


def test_without_a_terminal_there_are_no_bars(tmp_path):
    put(tmp_path, "superglue/CB/train.jsonl", rows(2))
    result = subprocess.run(
        [sys.executable, "-m", "bort", "tasks", "--data_root", str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert result.stderr == ""
    assert "macro_f1" in result.stdout


def test_real_files_are_all_in_order(shared, tmp_path):
    assert main(["tasks", "--data_root", str(shared / "data"), "--json", str(tmp_path / "list.json")]) == 0
    tasks = json.loads((tmp_path / "list.json").read_text(encoding="utf-8"))
    assert [segment["damage"] for task in tasks for segment in task["segments"] if segment["damage"]] == []
    full = {segment["name"]: segment["size"] for task in tasks if task["task"] == "MRPC" for segment in task["segments"]}
    assert full == {"train": 3668, "dev": 408, "test": 1725}


def test_a_task_named_twice_is_listed_once(tmp_path):
    put(tmp_path, "superglue/CB/train.jsonl", rows(3))
    for arguments in (["CB", "CB", "cb"], ["CB", "--benchmark", "superglue"]):
        assert listed(tmp_path, *arguments)["CB", "train"]["size"] == 3
        names = [task["task"] for task in json.loads((tmp_path / "list.json").read_text())]
        assert sorted(set(names)) == sorted(names)


def test_what_is_in_no_encoding_is_escaped(tmp_path, capsys):
    root = tmp_path / "o\udcff"
    put(root, "superglue/CB/train.jsonl", rows(1, label="\ud800"))
    file = tmp_path / "list.json"
    assert main(["tasks", "CB", "--data_root", str(root), "--json", str(file)]) == 0
    train = json.loads(file.read_text(encoding="ascii"))[0]["segments"][0]
    assert train["path"] == f"{root}/superglue/CB/train.jsonl"
    assert r'label "\ud800" is not one of' in train["damage"]
    assert r'label "\ud800" is not one of' in capsys.readouterr().out


@pytest.mark.parametrize("files", [3, 1])
def test_a_folder_of_many_or_large_files_is_not_read_in_a_list(tmp_path, monkeypatch, files):
    monkeypatch.setattr(inventory, "_MANY_FILES", 2)
    monkeypatch.setattr(inventory, "_READ_WHOLE", 1000)
    for number in range(files):
        put(tmp_path, f"race/dev/middle/{number}.txt", " " * 2000)
    state = listed(tmp_path)["RACE-M", "dev"]
    assert (state["damage"], state["size"], state["notes"]) == (None, None, [f"{tmp_path}/race/dev: {files} files, not read"])


def test_a_file_that_cannot_be_looked_at_is_damaged_and_the_others_are_listed(tmp_path, capsys):
    put(tmp_path, "superglue/CB/train.jsonl", rows(3))
    (tmp_path / "glue").mkdir()
    (tmp_path / "glue/RTE").symlink_to("RTE")
    segments = listed(tmp_path)
    assert segments["RTE", "train"]["damage"] == f"{tmp_path}/glue/RTE/train.tsv: Too many levels of symbolic links"
    assert segments["CB", "train"]["size"] == 3
    assert main(["tasks", "RTE", "CB", "--data_root", str(tmp_path)]) == 0
    assert "cannot be told" in capsys.readouterr().out


def put_run(folder, task, dev):
    counts = {"best_epoch": 1, "epochs": 1, "steps": 1, "parameters": 1, "train_rows": 1, "seconds": 1.0}
    result = counts | {"task": task, "score": 0.0, "dev": dev, "majority": dev, "settings": {}, "files": [], "test_rows": {}}
    put(folder, "result.json", json.dumps(result))


def test_scores_of_runs_are_averaged_by_task_and_by_benchmark(tmp_path, capsys):
    for number, accuracy in enumerate((0.5, 0.7)):
        put_run(tmp_path / f"runs/race-{number}", "RACE", {"dev": {"accuracy": accuracy, "accuracy_high": 0.4, "accuracy_middle": 0.8}})
    put_run(tmp_path / "runs/rte", "RTE", {"dev": {"accuracy": 0.25}})
    put_run(tmp_path / "runs/mrpc", "MRPC", {"dev": {"f1": 0.9, "accuracy": 0.8}})
    put_run(tmp_path / "runs/.killed.partial", "RTE", {"dev": {"accuracy": 1.0}})
    (tmp_path / "runs/again").symlink_to(tmp_path / "runs/rte")
    command = ["tasks", "scores", str(tmp_path / "runs"), str(tmp_path / "runs/rte"), "--json", str(tmp_path / "scores.json")]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert re.search(r"│ RACE +│ +2 │ +accuracy │ 0\.6000 │ 0\.6000 │", out)
    assert re.search(r"│ MRPC +│ +1 │ +f1 │ 0\.9000 │ 0\.8500 │", out)
    assert re.search(r"│ RTE +│ +1 │ +accuracy │ 0\.2500 │", out)
    assert "\nRACE 0.6000\n" in out
    assert "\nno average of GLUE without CoLA, SST-2, STS-B, QQP, MNLI, QNLI, WNLI\n" in out
    assert "SuperGLUE" not in out
    record = json.loads((tmp_path / "scores.json").read_text())
    assert record["benchmarks"] == {"GLUE": None, "RACE": pytest.approx(0.6)}
    assert [(row["task"], row["runs"]) for row in record["tasks"]] == [("MRPC", 1), ("RTE", 1), ("RACE", 2)]


@pytest.mark.parametrize(
    ("task", "dev", "reason"),
    [
        ("RTE", {"dev": {"accuracy": "0.5"}}, "not the result of a fine-tuning run: dev is missing or damaged"),
        ("RTE", {"dev": {"accuracy": float("nan")}}, "not the result of a fine-tuning run: dev is missing or damaged"),
        ("RTE", [], "not the result of a fine-tuning run: dev is missing or damaged"),
        ("RTE", {"dev": {}}, "no dev accuracy of RTE; repeat the run"),
        ("MNLI", {"dev_matched": {"accuracy": 0.5}}, "no dev_mismatched accuracy of MNLI; repeat the run"),
        ("XY", {}, 'no task "XY"; there are CoLA'),
    ],
)
def test_a_result_without_its_scores_is_named(tmp_path, capsys, task, dev, reason):
    put_run(tmp_path / "run", task, dev)
    assert main(["tasks", "scores", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"bort: error: {tmp_path}/run/result.json: {reason}")
