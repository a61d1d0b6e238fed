"""bort predict --exported: the same files, lines and errors as with --checkpoint, without MXNet."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bort.cli import main

pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

from ..export.test_exported_model import sizes, spread_out, write_classifier, write_export


@pytest.fixture(scope="module")
def folders(tokenizer, repository, tmp_path_factory):
    """Model folder and exported folder of a task."""
    made = {}

    def of(name):
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            source = write_classifier(name, tokenizer, repository, folder / "best")
            made[name] = ["--checkpoint", str(source)], ["--exported", str(write_export(source, folder / "exported"))]
        return made[name]

    return of


def predict(model, *words):
    assert main(["predict", *model, *map(str, words)]) == 0


@pytest.mark.parametrize("name", ["SST-2", "STS-B", "COPA", "RACE"])
def test_a_test_set_gives_the_same_files(folders, repository, tmp_path, name):
    written = []
    for folder, model in zip(("theirs", "ours"), folders(name), strict=True):
        predict(model, "--task", name, "--data_root", repository / "test_data", "--output", tmp_path / folder)
        written.append({path.name: path.read_text() for path in (tmp_path / folder).iterdir()})
    if name == "STS-B":
        tables = [[line.split("\t") for line in files["STS-B.tsv"].splitlines()] for files in written]
        scores = [[float(score) for _, score in table[1:]] for table in tables]
        # Three decimals, the last of which may be rounded either way.
        assert scores[1] == pytest.approx(scores[0], abs=0.0011)
        assert tables[1][0] == tables[0][0]
    else:
        assert written[1] == written[0]


def test_a_dev_set_has_the_same_scores(folders, repository, capsys):
    said = []
    for model in folders("RTE"):
        capsys.readouterr()
        predict(model, "--task", "RTE", "--segment", "dev", "--data_root", repository / "test_data")
        said.append(capsys.readouterr().out)
    assert said[1] == said[0]
    assert said[0].startswith("RTE dev accuracy 0.")


@pytest.mark.parametrize("options", [[], ["--output_format", "jsonl"], ["--probabilities", "--batch_size", "3"]])
def test_a_file_gives_the_same_lines(folders, tmp_path, options):
    pairs = ["It rains.\tIt is wet.", "\t", "He sings.\t" + "very " * 300, "<s> </s>\tça va 😀"] * 6
    (tmp_path / "rows.tsv").write_text("\n".join(pairs) + "\n", encoding="utf-8")
    answers = []
    for name, model in zip(("theirs", "ours"), folders("RTE"), strict=True):
        predict(model, "--input", tmp_path / "rows.tsv", "--output", tmp_path / name, *options)
        answers.append([line.split("\t") for line in (tmp_path / name).read_text().splitlines()])
    assert [row[:2] for row in answers[1]] == [row[:2] for row in answers[0]]
    for ours, theirs in zip(*answers, strict=True):
        assert [float(cell) for cell in ours[2:] if "_" not in cell] == pytest.approx(
            [float(cell) for cell in theirs[2:] if "_" not in cell], abs=2e-5
        )


def test_rows_of_the_tasks_own_fields_are_labelled(folders, repository, tmp_path):
    source = repository / "test_data/superglue/COPA/val.jsonl"
    for name, model in zip(("theirs", "ours"), folders("COPA"), strict=True):
        predict(model, "--input", source, "--output", tmp_path / name)
    assert (tmp_path / "ours").read_text() == (tmp_path / "theirs").read_text()
    assert {json.loads(line)["label"] for line in (tmp_path / "ours").read_text().splitlines()} == {0, 1}


WITHOUT_MXNET = """
import sys
from bort.cli import main
status = main(["predict", *sys.argv[1:]])
loaded = {name.partition(".")[0] for name in sys.modules} & {"mxnet", "gluonnlp", "horovod", "torch"}
print(status, sorted(loaded), file=sys.stderr)
"""


def test_a_pipe_is_answered_row_by_row_and_mxnet_is_not_imported(folders):
    command = [sys.executable, "-c", WITHOUT_MXNET, *folders("SST-2")[1], "--input", "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        for number in range(3):
            process.stdin.write(b"the soup was wonderful\n")
            process.stdin.flush()
            if number == 0:
                assert process.stdout.readline() == b"index\tprediction\n"
            # Were it not answered before the next row is written, this would wait for ever.
            assert process.stdout.readline().startswith(f"{number}\t".encode())
        process.stdin.close()
        assert process.stdout.read() == b""
        assert process.stderr.read().splitlines()[-1] == b"0 []"


MEASURED = """
import re, sys
from bort.cli import main
for name in sys.argv[1:3]:
    status = main(["predict", *sys.argv[3:], "--input", name, "--output", name + ".out"])
    # Not ru_maxrss, which begins with what the parent had when it forked.
    print(status, int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) // 1024, file=sys.stderr)
"""


def test_memory_does_not_grow_with_the_input(folders, tmp_path):
    inputs = {str(tmp_path / f"{num_rows}.tsv"): num_rows for num_rows in (2_000, 30_000)}
    for path, num_rows in inputs.items():
        Path(path).write_text("".join(f"the soup was number {row} and {'very ' * (row % 7)}good\n" for row in range(num_rows)))
    arguments = [*inputs, *folders("SST-2")[1]]
    result = subprocess.run([sys.executable, "-c", MEASURED, *arguments], capture_output=True, text=True, check=True)
    peaks = []
    for (path, num_rows), line in zip(inputs.items(), result.stderr.splitlines()[-2:], strict=True):
        status, megabytes = line.split()
        assert status == "0"
        assert len(Path(f"{path}.out").read_text().splitlines()) == num_rows + 1
        peaks.append(int(megabytes))
    assert peaks[1] - peaks[0] < 60, peaks


def test_what_does_not_fit_is_one_line_and_leaves_nothing(folders, tokenizer, tmp_path, capsys):
    from bort import get_bort_model
    from bort.gluon.parameters import get_arrays
    from bort.model_directory import write_model_directory

    checkpoint, exported = folders("RTE")
    write_model_directory(tmp_path / "model", sizes(tokenizer), spread_out(get_arrays(get_bort_model(sizes(tokenizer))[0])), tokenizer)
    pretrained = write_export(tmp_path / "model", tmp_path / "pretrained")
    (tmp_path / "rows.tsv").write_text("one\ttwo\nonly one\n")
    rows = ["--input", tmp_path / "rows.tsv"]
    for model, words, wrong in [
        ([*exported, "--gpu"], rows, "--gpu says nothing with --exported"),
        (["--exported", pretrained], rows, "an exported model without a classifier"),
        (["--exported", checkpoint[1]], rows, "export.json: cannot read"),
        (["--exported", tmp_path / "nowhere"], rows, "export.json: cannot read"),
        (exported, rows, "rows.tsv, line 2: 1 tab-separated texts, the task has 2"),
        (exported, ["--task", "STS-B"], "was fine-tuned on RTE; it cannot label STS-B; give another classifier"),
        (exported, ["--task", "RTE", "--probabilities"], "--probabilities says nothing with --task"),
    ]:
        assert main(["predict", *map(str, [*model, *words]), "--output", str(tmp_path / "out")]) == 2
        said = capsys.readouterr().err
        assert wrong in said
        assert said.count("\n") == 1
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ([], "one of the arguments --checkpoint --exported is required"),
        (["--checkpoint", "a", "--exported", "b"], "argument --exported: not allowed with argument --checkpoint"),
    ],
)
def test_exactly_one_model_is_asked_for(models, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["predict", *models, "--input", "-"])
    assert message in capsys.readouterr().err
