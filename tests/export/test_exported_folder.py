"""Exported folders: what stands in them, that they come whole, and what is refused."""

from __future__ import annotations

import json

import pytest

from bort.config import BortConfig
from bort.errors import BortError
from bort.export.exported_folder import DESCRIPTION_FILE, IR_FILE, MODEL_FILE, read_exported_folder, write_exported_folder
from bort.model_directory import TrainedTask

_TASK = TrainedTask("RTE", ("not_entailment", "entailment"), 32)


@pytest.fixture
def config(tokenizer):
    return BortConfig(32, 32, 1, 4, 40, len(tokenizer.vocab))


def _place(folder):
    (folder / MODEL_FILE).write_bytes(b"a graph")


def _write(folder, config, tokenizer, **changes):
    arguments = {"kind": "classifier", "tokenizer": tokenizer, "task": _TASK} | changes
    write_exported_folder(folder, _place, config, **arguments)
    return folder


def test_a_folder_says_what_it_is(config, tokenizer, tmp_path):
    report = {"checked": "RTE", "loss": 0.25}
    folder = _write(tmp_path / "out", config, tokenizer, precision="int8", reduced_range=True, report=report)
    read = read_exported_folder(folder)
    assert (read.config, read.kind, read.task, read.precision, read.reduced_range) == (config, "classifier", _TASK, "int8", True)
    assert read.report == report
    assert read.model == folder / MODEL_FILE
    assert read.tokenizer().encode("It rains.") == tokenizer.encode("It rains.")


def test_other_libraries_find_labels_and_tokenizer(config, tokenizer, tmp_path):
    import tokenizers

    folder = _write(tmp_path / "out", config, tokenizer, labels=("no", "yes"))
    assert json.loads((folder / "config.json").read_text())["id2label"] == {"0": "no", "1": "yes"}
    theirs = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    vocab = tokenizer.vocab
    ids = [vocab.bos_id, *tokenizer.encode("It rains."), vocab.eos_id, *tokenizer.encode("Rain?"), vocab.eos_id]
    assert theirs.encode("It rains.", "Rain?").ids == ids


def test_an_openvino_model_goes_before_onnx(config, tokenizer, tmp_path):
    folder = _write(tmp_path / "out", config, tokenizer, kind="encoder", task=None)
    assert read_exported_folder(folder).task is None
    (folder / IR_FILE).write_text("<net/>")
    assert read_exported_folder(folder).model == folder / IR_FILE


def test_nothing_is_left_of_a_folder_that_could_not_be_filled(config, tokenizer, tmp_path):
    def fail(folder):
        _place(folder)
        raise BortError("the disk is full")

    with pytest.raises(BortError, match="the disk is full"):
        write_exported_folder(tmp_path / "out", fail, config, "encoder", tokenizer)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot read"),
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[]", "expected a JSON object, found list"),
        (b"{}", "not as bort export writes it"),
        (b'{"kind": "decoder", "precision": "int8", "reduced_range": false, "report": {}}', "not as bort export writes it"),
        (b'{"kind": "classifier", "precision": "int4", "reduced_range": false, "report": {}}', "not as bort export writes it"),
        (b'{"kind": "classifier", "precision": "int8", "reduced_range": 0, "report": {}}', "not as bort export writes it"),
        (b'{"kind": "encoder", "precision": "int8", "reduced_range": false, "report": {}}', "not as bort export writes it"),
    ],
)
def test_a_damaged_description_is_refused(config, tokenizer, tmp_path, content, says):
    path = _write(tmp_path / "out", config, tokenizer) / DESCRIPTION_FILE
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BortError, match=says) as raised:
        read_exported_folder(tmp_path / "out")
    assert str(path) in str(raised.value)


def test_a_folder_without_its_model_or_with_another_vocabulary_is_refused(config, tokenizer, tmp_path):
    folder = _write(tmp_path / "out", config, tokenizer)
    (folder / MODEL_FILE).unlink()
    with pytest.raises(BortError, match=r"no model\.onnx and no openvino_model\.xml"):
        read_exported_folder(folder)
    folder = _write(tmp_path / "other", BortConfig(32, 32, 1, 4, 40, len(tokenizer.vocab) + 1), tokenizer)
    with pytest.raises(BortError, match="the vocabulary has"):
        read_exported_folder(folder).tokenizer()


@pytest.mark.parametrize(
    ("precision", "reduced_range", "flags", "is_refused"),
    [
        ("int8", False, {"avx2", "avx512f"}, True),
        ("int8", False, set(), True),
        ("int8", True, {"avx2"}, False),
        ("int8", False, {"avx2", "avx_vnni"}, False),
        ("int8", False, {"avx512_vnni"}, False),
        ("float32", False, set(), False),
    ],
)
def test_int8_is_refused_where_its_sums_would_overflow(config, tokenizer, tmp_path, precision, reduced_range, flags, is_refused):
    folder = read_exported_folder(_write(tmp_path / "out", config, tokenizer, precision=precision, reduced_range=reduced_range))
    if not is_refused:
        folder.check_cpu(frozenset(flags))
        return
    with pytest.raises(BortError, match=r"need a CPU with VNNI.*--reduced_range yes") as raised:
        folder.check_cpu(frozenset(flags))
    assert "\n" not in str(raised.value)
