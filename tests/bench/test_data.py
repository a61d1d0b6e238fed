"""The data benchmark runs, verifies what it times, and says what it measured. No figure is asserted."""

from __future__ import annotations

import gzip

import pytest

from bort import BortError
from bort.bench import data
from bort.bench.data import Vocabulary, bench_data, print_report
from bort.bench.processes import measure
from bort.corpus.documents import find_text_files


@pytest.fixture(scope="module")
def vocabulary(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("vocab")
    tokenizer.save(folder)
    return Vocabulary(str(folder), None)


@pytest.fixture(scope="module")
def files(repository):
    return find_text_files([str(repository / "test_data/heldout")])


def test_the_record_holds_every_run(files, vocabulary, capsys):
    record = bench_data(files, vocabulary, repeats=2, workers=[1], copies=3, num_outputs=2, show_progress=False)
    size = 3 * sum(file.stat().st_size for file in files)
    assert record["text"] == {"files": [str(file) for file in files], "copies": 3, "bytes": size}
    assert record["vocabulary"]["tokens"] == 400
    assert record["verification"]["sentences_encoded"] == record["verification"]["sentences"] > 3
    (run,) = record["runs"]
    for name in ("seconds", "cpu_seconds", "process_seconds", "mb_per_second"):
        assert len(run[name]["samples"]) == 2
        assert 0 < run[name]["least"] <= run[name]["median"] <= run[name]["most"]
    assert all(whole > part for whole, part in zip(run["process_seconds"]["samples"], run["seconds"]["samples"], strict=True))
    assert record["encoding_alone"]["mb_per_second"] > 0
    print_report(record)
    assert "text to shards, 1 worker " in capsys.readouterr().out


def test_shards_that_depend_on_the_number_of_workers_are_an_error(files, vocabulary, monkeypatch):
    def measure_with_another_text(function, arguments, cores):
        if arguments.get("num_workers") == 2:
            arguments = arguments | {"files": arguments["files"][:1]}
        return measure(function, arguments | {"num_workers": 1} if "num_workers" in arguments else arguments, [min(cores)])

    monkeypatch.setattr(data, "measure", measure_with_another_text)
    monkeypatch.setattr(data, "choose_cores", lambda count: [0])
    with pytest.raises(BortError, match="with 2 workers the shards are others than with 1"):
        bench_data(list(files) * 2, vocabulary, repeats=1, workers=[1, 2], copies=1, num_outputs=1, show_progress=False)


def test_compressed_text_is_refused(tmp_path, vocabulary):
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"text"))
    with pytest.raises(BortError, match=r"a\.txt\.gz: the benchmark reads plain text"):
        bench_data([tmp_path / "a.txt.gz"], vocabulary, repeats=1, workers=[1], copies=1, num_outputs=1, show_progress=False)


@pytest.mark.parametrize("wrong", [{"repeats": 0}, {"copies": 0}, {"workers": [0]}])
def test_numbers_below_one_are_refused(files, vocabulary, wrong):
    with pytest.raises(BortError, match="must be at least 1"):
        bench_data(files, vocabulary, **({"repeats": 1, "workers": [1], "copies": 1, "num_outputs": 1, "show_progress": False} | wrong))
