"""Encoded rows on the disk: the same rows as without, made again where anything has changed or is damaged, and never a reason to fail."""

from __future__ import annotations

import dataclasses
import hashlib
import multiprocessing
import tracemalloc
import warnings

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bort import BortError
from bort.parameters import map_safetensors
from bort.tasks import cache as cache_module
from bort.tasks import get_task
from bort.tasks.cache import default_cache, encode_segment
from bort.tasks.encoding import encode_examples

TASK, SEGMENT = "RTE", "train"


@pytest.fixture
def task(repository, tmp_path):
    """RTE, its files in a folder that a test may change."""
    folder = tmp_path / "data/glue/RTE"
    folder.mkdir(parents=True)
    for file in (repository / "test_data/glue/RTE").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return get_task(TASK, tmp_path / "data")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


def encode(task, tokenizer, folder, max_len=64, keep_question=False, segment=SEGMENT):
    """Rows of a segment; any warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return encode_segment(task, segment, task.examples(segment), tokenizer, max_len, keep_question, folder)


def assert_right(rows, task, tokenizer, max_len=64):
    """Rows are those that encoding gives, and ready to be batched."""
    examples = task.examples(SEGMENT)
    expected = encode_examples(examples, tokenizer, max_len)
    assert len(rows) == len(expected)
    for ids, wanted in zip(rows.input_ids, expected, strict=True):
        assert ids.dtype == np.int32
        np.testing.assert_array_equal(ids, wanted)
    assert rows.labels.tolist() == [example.label for example in examples]
    assert rows.labels.dtype == np.float32
    assert (rows.pad_id, rows.max_len) == (tokenizer.vocab.pad_id, max_len)


def cached_file(folder):
    (file,) = folder.iterdir()
    return file


class Counted:
    """A tokenizer that counts the texts it is given."""

    def __init__(self, tokenizer):
        self.tokenizer, self.texts = tokenizer, 0

    def __getattr__(self, name):
        return getattr(self.tokenizer, name)

    def encode_batch(self, texts):
        self.texts += len(texts)
        return self.tokenizer.encode_batch(texts)


def test_the_second_time_nothing_is_tokenised(task, tokenizer, folder):
    counted = Counted(tokenizer)
    assert_right(encode(task, counted, folder), task, tokenizer)
    assert counted.texts > 0
    counted.texts = 0
    assert_right(encode(task, counted, folder), task, tokenizer)
    assert counted.texts == 0


def test_without_a_cache_nothing_is_written(task, tokenizer, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    assert_right(encode(task, tokenizer, None), task, tokenizer)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_is_what_any_safetensors_reader_can_read(task, tokenizer, folder):
    rows = encode(task, tokenizer, folder)
    file = cached_file(folder)
    assert file.name.startswith("RTE-train-")
    arrays = load_file(file)
    assert (arrays["ids"].dtype, arrays["offsets"].dtype) == (np.int32, np.int64)
    np.testing.assert_array_equal(arrays["ids"], np.concatenate(rows.input_ids))
    np.testing.assert_array_equal(np.diff(arrays["offsets"]), rows.lengths)
    assert map_safetensors(file)[1]["rows"] == str(len(rows))


def test_labels_come_from_the_rows_at_hand(task, tokenizer, folder):
    encode(task, tokenizer, folder)
    examples = [dataclasses.replace(example, label=1 - example.label) for example in task.examples(SEGMENT)]
    rows = encode_segment(task, SEGMENT, examples, tokenizer, 64, False, folder)
    assert rows.labels.tolist() == [example.label for example in examples]


def test_unlabelled_rows_have_label_zero(task, tokenizer, folder):
    assert encode(task, tokenizer, folder, segment="test").labels.sum() == 0


def test_whatever_decides_the_ids_has_a_file_of_its_own(task, tokenizer, folder, monkeypatch):
    encode(task, tokenizer, folder)
    encode(task, tokenizer, folder, max_len=32)
    encode(task, tokenizer, folder, keep_question=True)
    encode(task, tokenizer, folder, segment="dev")
    other = Counted(tokenizer)
    other.fingerprint = "of another vocabulary"
    encode(task, other, folder)
    encode(dataclasses.replace(task, name="Other"), tokenizer, folder)
    monkeypatch.setattr(cache_module, "INPUT_FORMAT", 99)
    encode(task, tokenizer, folder)
    assert len(list(folder.iterdir())) == 7


def test_an_edited_file_of_the_task_is_encoded_anew(task, tokenizer, folder):
    before = encode(task, tokenizer, folder)
    path = task.path(SEGMENT)
    path.write_bytes(path.read_bytes().replace(b" the ", b" no ", 1))
    after = encode(task, tokenizer, folder)
    assert_right(after, task, tokenizer)
    assert any(not np.array_equal(one, other) for one, other in zip(before.input_ids, after.input_ids, strict=True))


def damage(name):
    """What befalls a file."""

    def flip(file):
        data = bytearray(file.read_bytes())
        data[-5] ^= 1
        file.write_bytes(data)

    def change(**arrays):
        """A forged file: the checksum is right for what it holds."""

        def apply(file):
            tensors, metadata = load_file(file), map_safetensors(file)[1]
            tensors |= {name: edit(tensors[name].copy()) for name, edit in arrays.items()}
            metadata["sha256"] = cache_module._digest_of_rows(tensors["ids"], tensors["offsets"])
            save_file(tensors, file, metadata)

        return apply

    def put(value, place):
        def apply(array):
            array[place] = value
            return array

        return apply

    return {
        "empty": lambda file: file.write_bytes(b""),
        "cut": lambda file: file.write_bytes(file.read_bytes()[:-7]),
        "cut in the header": lambda file: file.write_bytes(file.read_bytes()[:20]),
        "one bit": flip,
        "text": lambda file: file.write_text("not a cache file at all"),
        "foreign": lambda file: save_file({"weight": np.zeros(3, np.float32)}, file),
        "an id outside the vocabulary": change(ids=put(400, 7)),
        "a negative id": change(ids=put(-1, 7)),
        "an offset behind the end": change(offsets=put(10**9, -1)),
        "offsets that fall": change(offsets=put(0, 3)),
        "a first offset": change(offsets=put(1, 0)),
        "too few rows": change(offsets=lambda offsets: np.append(offsets[:3], offsets[-1])),
        "another type": change(ids=lambda ids: ids.astype(np.int64)),
        "another shape": change(ids=lambda ids: ids[None]),
    }[name]


@pytest.mark.parametrize(
    "name",
    [
        "empty", "cut", "cut in the header", "one bit", "text", "foreign", "an id outside the vocabulary", "a negative id",
        "an offset behind the end", "offsets that fall", "a first offset", "too few rows", "another type", "another shape",
    ],
)  # fmt: skip
def test_a_damaged_file_is_made_again_with_a_warning(task, tokenizer, folder, name):
    encode(task, tokenizer, folder)
    file = cached_file(folder)
    good = file.read_bytes()
    damage(name)(file)
    assert file.read_bytes() != good
    with pytest.warns(UserWarning, match="the rows are encoded again") as caught:
        rows = encode_segment(task, SEGMENT, task.examples(SEGMENT), tokenizer, 64, False, folder)
    assert len(caught) == 1
    assert str(caught[0].message).startswith(f"{file}: ")
    assert "\n" not in str(caught[0].message)
    assert_right(rows, task, tokenizer)
    assert file.read_bytes() == good
    assert_right(encode(task, tokenizer, folder), task, tokenizer)


@pytest.mark.parametrize("reading", [lambda example: {"texts": tuple(map(str.upper, example.texts))}, lambda _: {"question_start": 1}])
def test_another_reading_of_the_same_file_has_a_cache_file_of_its_own(task, tokenizer, folder, reading):
    encode(task, tokenizer, folder, keep_question=True)
    examples = [dataclasses.replace(example, **reading(example)) for example in task.examples(SEGMENT)]
    rows = encode_segment(task, SEGMENT, examples, tokenizer, 64, True, folder)
    np.testing.assert_array_equal(np.concatenate(rows.input_ids), np.concatenate(encode_examples(examples, tokenizer, 64, True)))
    assert len(list(folder.iterdir())) == 2


def test_a_file_under_the_name_of_another_is_not_used(task, tokenizer, folder):
    encode(task, tokenizer, folder, max_len=32)
    short = cached_file(folder).rename(folder.parent / "short")
    encode(task, tokenizer, folder)
    short.replace(cached_file(folder))
    with pytest.warns(UserWarning, match="damaged, or made of other rows; the rows are encoded again"):
        rows = encode_segment(task, SEGMENT, task.examples(SEGMENT), tokenizer, 64, False, folder)
    assert_right(rows, task, tokenizer)


def test_the_checksum_of_rows_copies_none_of_them():
    ids, offsets = np.arange(1 << 20, dtype=np.int32), np.arange(1000, dtype=np.int64)
    tracemalloc.start()
    digest = cache_module._digest_of_rows(ids, offsets)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 16
    assert digest == hashlib.sha256(offsets.tobytes() + ids.tobytes()).hexdigest()
    assert cache_module._digest_of_rows(ids[:0], offsets[:0]) == hashlib.sha256().hexdigest()


def test_a_folder_that_cannot_be_written_is_gone_without_and_named_once(task, tokenizer, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    for folder in (blocked, blocked / "below", "/proc/bort"):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")
            for segment in (SEGMENT, "dev", SEGMENT):
                rows = encode_segment(task, segment, task.examples(segment), tokenizer, 64, False, tmp_path / folder)
        assert_right(rows, task, tokenizer)
        assert [str(warning.message).split(": ")[:2] for warning in caught] == [
            [str(tmp_path / folder), "encoded rows cannot be kept there"]
        ]
    assert blocked.read_text() == "not a folder"


def test_a_folder_that_stands_in_the_place_of_a_file_is_gone_without(task, tokenizer, folder):
    encode(task, tokenizer, folder)
    file = cached_file(folder)
    file.unlink()
    file.mkdir()
    with pytest.warns(UserWarning, match="encoded") as caught:
        rows = encode_segment(task, SEGMENT, task.examples(SEGMENT), tokenizer, 64, False, folder)
    assert ["again" in str(warning.message) for warning in caught] == [True, False]
    assert_right(rows, task, tokenizer)


def fill(root, folder, vocabulary, start, answers):
    """In a process of its own: encode as soon as all are ready."""
    from bort.tokenizer import Tokenizer

    task, tokenizer = get_task(TASK, root), Tokenizer.from_directory(vocabulary)
    examples = task.examples(SEGMENT)
    start.wait()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = encode_segment(task, SEGMENT, examples, tokenizer, 64, False, folder)
    answers.put(np.concatenate(rows.input_ids).tolist())


def test_processes_may_fill_one_folder_at_once(task, tokenizer, folder, tmp_path):
    tokenizer.save(tmp_path / "vocab")
    context = multiprocessing.get_context("spawn")
    start, answers = context.Barrier(4), context.Queue()
    processes = [context.Process(target=fill, args=(tmp_path / "data", folder, tmp_path / "vocab", start, answers)) for _ in range(4)]
    for process in processes:
        process.start()
    found = [answers.get(timeout=50) for _ in processes]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    expected = np.concatenate(encode_examples(task.examples(SEGMENT), tokenizer, 64)).tolist()
    assert found == [expected] * 4
    # No neighbour is left behind.
    assert_right(encode(task, tokenizer, folder), task, tokenizer)
    cached_file(folder)


def test_many_rows_are_encoded_in_parts(task, tokenizer, folder, monkeypatch):
    monkeypatch.setattr(cache_module, "_ROWS_AT_ONCE", 3)
    rows = encode(task, tokenizer, folder)
    assert_right(rows, task, tokenizer)
    monkeypatch.undo()
    assert_right(encode(task, tokenizer, None), task, tokenizer)


def test_no_bar_where_there_is_no_terminal(task, tokenizer, folder, capfd):
    encode(task, tokenizer, folder)
    assert capfd.readouterr() == ("", "")


def test_a_length_without_room_is_an_error_and_leaves_no_file(task, tokenizer, folder):
    with pytest.raises(BortError, match="at least 5"):
        encode(task, tokenizer, folder, max_len=4)
    assert not folder.exists()


def test_the_default_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "bort/tasks"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_cache() == tmp_path / "home/.cache/bort/tasks"
