"""Masked sequences in .npz files: plain arrays with the masks of a run's first epochs, and the published, pickled form on demand."""

from __future__ import annotations

import errno
import json
import weakref

import numpy as np
import pytest

from bort import BortError
from bort.corpus import npz_writing
from bort.corpus.documents import find_text_files
from bort.corpus.masking import Masker
from bort.corpus.npz import StaticSequences
from bort.corpus.npz_writing import create_npz, write_npz
from bort.corpus.sequences import DynamicSequences
from bort.corpus.shards import Corpus, create_shards
from bort.settings import NpzSettings, ShardSettings

PUBLISHED = {
    "input_ids", "masked_lm_ids", "masked_lm_positions", "masked_lm_weights", "next_sentence_labels", "segment_ids", "valid_lengths",
}  # fmt: skip


@pytest.fixture(scope="module")
def shards(repository, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    files = find_text_files([str(repository / "test_data/corpus")])
    create_shards(files, tokenizer, folder, ShardSettings(max_seq_length=32, num_outputs=3))
    return folder


@pytest.fixture(scope="module")
def corpus(shards):
    return Corpus(shards)


@pytest.fixture(scope="module")
def folder(shards, tokenizer, tmp_path_factory):
    """Two copies of each sequence."""
    folder = tmp_path_factory.mktemp("npz")
    write_npz(shards, tokenizer.vocab, folder, NpzSettings(dupe_factor=2, max_predictions_per_seq=6), seed=7)
    return folder


def same(one, two):
    pairs = ((one.token_ids, two.token_ids), (one.positions, two.positions), (one.labels, two.labels))
    return all(np.array_equal(first, second) and first.dtype == second.dtype for first, second in pairs)


def test_numpy_reads_the_published_arrays(folder, corpus, tokenizer):
    sequences = 0
    for path in sorted(folder.iterdir()):
        file = np.load(path)
        assert set(file) == PUBLISHED | {"metadata"}
        rows = len(file["valid_lengths"])
        sequences += rows
        assert file["input_ids"].shape == file["segment_ids"].shape == (rows, 32)
        assert {file[name].shape for name in file if name.startswith("masked")} == {(rows, 6)}
        assert {file[name].dtype for name in PUBLISHED - {"masked_lm_weights"}} == {np.dtype(np.int32)}
        assert file["masked_lm_weights"].dtype == np.float32
        assert not file["segment_ids"].any()
        assert not file["next_sentence_labels"].any()
        padding = np.arange(32) >= file["valid_lengths"][:, None]
        assert ((file["input_ids"] == tokenizer.vocab.pad_id) == padding).all()
        assert json.loads(str(file["metadata"]))["vocab_fingerprint"] == tokenizer.vocab.fingerprint
    assert sequences == 2 * len(corpus)


@pytest.mark.parametrize("whole_word_mask", [False, True])
def test_masks_are_those_of_the_first_epochs_of_a_run(shards, corpus, tokenizer, tmp_path, whole_word_mask):
    settings = NpzSettings(dupe_factor=3, masked_lm_prob=0.3, max_predictions_per_seq=5, whole_word_mask=whole_word_mask)
    paths = write_npz(shards, tokenizer.vocab, tmp_path, settings, seed=11)
    static = StaticSequences(tmp_path, len(tokenizer.vocab))
    masker = Masker(tokenizer.vocab, 0.3, 5, 11, whole_word_mask)
    dynamic = DynamicSequences(corpus, tokenizer.vocab, masker)
    assert len(paths) == 3
    bounds = [len(corpus) * number // 3 for number in range(4)]
    numbered = [(copy, index) for shard in range(len(paths)) for copy in range(3) for index in range(bounds[shard], bounds[shard + 1])]
    assert len(static) == len(numbered) == 3 * len(dynamic)
    for row, (copy, index) in enumerate(numbered):
        assert same(static.masked(99, row), dynamic.masked(copy, index))
    assert static.lengths.tolist() == [dynamic.lengths[index] for _, index in numbered]
    assert static.lengths.dtype == np.int32
    assert static.max_seq_length == 32
    # The copies differ, or dupe_factor would be of no use.
    assert not same(static.masked(0, 0), static.masked(0, bounds[1]))


def test_the_same_corpus_gives_the_same_bytes_and_another_seed_others(shards, tokenizer, folder, tmp_path):
    settings = NpzSettings(dupe_factor=2, max_predictions_per_seq=6)
    for seed in (7, 8):
        write_npz(shards, tokenizer.vocab, tmp_path / str(seed), settings, seed)
    names = sorted(path.name for path in folder.iterdir())
    assert all((folder / name).read_bytes() == (tmp_path / "7" / name).read_bytes() for name in names)
    prints = [StaticSequences(where, len(tokenizer.vocab)).fingerprint for where in (folder, tmp_path / "7", tmp_path / "8")]
    assert prints[0] == prints[1] != prints[2]


def test_a_new_set_replaces_the_old_one(shards, tokenizer, repository, tmp_path):
    files = find_text_files([str(repository / "test_data/heldout")])
    create_shards(files, tokenizer, tmp_path / "shards", ShardSettings(max_seq_length=32))
    for source in (shards, tmp_path / "shards"):
        write_npz(source, tokenizer.vocab, tmp_path / "npz", NpzSettings(), seed=0)
    assert [path.name for path in (tmp_path / "npz").iterdir()] == ["shard_0000_of_0001.npz"]


def test_text_becomes_the_same_files_in_one_step_and_nothing_else_stays(folder, tokenizer, repository, tmp_path):
    files = find_text_files([str(repository / "test_data/corpus")])
    settings = NpzSettings(dupe_factor=2, max_predictions_per_seq=6)
    report = create_npz(files, tokenizer, tmp_path, ShardSettings(max_seq_length=32, num_outputs=3, seed=7), settings, num_workers=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in folder.iterdir())
    assert len(StaticSequences(tmp_path, len(tokenizer.vocab))) == 2 * report.sequences
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(BortError, match=r"empty\.txt"):
        create_npz([tmp_path / "empty.txt"], tokenizer, tmp_path / "new" / "er", ShardSettings(), settings)
    assert not (tmp_path / "new" / "er").exists()


def test_finished_files_are_kept_and_only_those(shards, tokenizer, folder, tmp_path):
    settings = NpzSettings(dupe_factor=2, max_predictions_per_seq=6)
    whole, damaged, missing = write_npz(shards, tokenizer.vocab, tmp_path, settings, seed=7)
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    missing.unlink()
    (tmp_path / f".{missing.name}.abc.partial").touch()
    number = whole.stat().st_ino
    assert write_npz(shards, tokenizer.vocab, tmp_path, settings, seed=7) == [whole, damaged, missing]
    assert whole.stat().st_ino == number
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {path.name: path.read_bytes() for path in folder.iterdir()}
    write_npz(shards, tokenizer.vocab, tmp_path, settings, seed=8)
    assert all((tmp_path / path.name).read_bytes() != path.read_bytes() for path in folder.iterdir())


def test_the_files_do_not_depend_on_the_number_of_workers(shards, tokenizer, folder, tmp_path):
    write_npz(shards, tokenizer.vocab, tmp_path, NpzSettings(dupe_factor=2, max_predictions_per_seq=6), seed=7, num_workers=2)
    assert all((tmp_path / path.name).read_bytes() == path.read_bytes() for path in folder.iterdir())


def test_one_short_lived_mapping_is_open_at_a_time(shards, corpus, tokenizer, folder, tmp_path, monkeypatch):
    mappings = weakref.WeakSet()
    opened = []

    class Watched(Corpus):
        def __init__(self, *arguments):
            assert not mappings
            super().__init__(*arguments)
            mappings.add(self)
            opened.append(1)

    monkeypatch.setattr(npz_writing, "Corpus", Watched)
    monkeypatch.setattr(npz_writing, "_SEQUENCES_A_MAPPING", 5)
    write_npz(shards, tokenizer.vocab, tmp_path, NpzSettings(dupe_factor=2, max_predictions_per_seq=6), seed=7)
    assert len(opened) > 2 * len(corpus) / 5
    assert all((tmp_path / path.name).read_bytes() == path.read_bytes() for path in folder.iterdir())


def test_what_is_not_ours_stays(tokenizer, repository, tmp_path):
    files = find_text_files([str(repository / "test_data/heldout")])
    settings = ShardSettings(max_seq_length=32)

    def contents():
        return {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    create_shards(files, tokenizer, tmp_path / "npz" / ".shards", settings)
    before = contents()
    with pytest.raises(BortError, match=r"npz/\.shards: not a folder of bort data; move it away, or give another --output$"):
        create_npz(files, tokenizer, tmp_path / "npz", settings, NpzSettings())
    with pytest.raises(BortError, match=r"\.shards: holds shards \(shard_\*\.safetensors\), .*; give another --output$"):
        create_npz(files, tokenizer, tmp_path / "npz" / ".shards", settings, NpzSettings())
    assert contents() == before


def test_a_killed_run_is_taken_up_and_a_note_of_the_user_kept(tokenizer, repository, tmp_path, monkeypatch):
    files = find_text_files([str(repository / "test_data/heldout")])
    settings = ShardSettings(max_seq_length=32, num_outputs=2)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(npz_writing, "_write_file", killed)
        with pytest.raises(KeyboardInterrupt):
            create_npz(files, tokenizer, tmp_path, settings, NpzSettings())
    note = tmp_path / ".shards" / "note.txt"
    note.write_text("mine")
    report = create_npz(files, tokenizer, tmp_path, settings, NpzSettings())
    assert report.kept_shards == 2
    assert [path.name for path in note.parent.iterdir()] == ["note.txt"]
    assert len(StaticSequences(tmp_path, len(tokenizer.vocab))) == report.sequences


def test_a_disk_that_cannot_be_written_is_one_line(tokenizer, repository, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(npz_writing, "write_npz_file", full)
    files = find_text_files([str(repository / "test_data/heldout")])
    with pytest.raises(BortError, match=r"^[^\n]*: cannot write \.npz files: No space left on device; make room [^\n]*$"):
        create_npz(files, tokenizer, tmp_path, ShardSettings(max_seq_length=32), NpzSettings())


def test_there_are_no_more_files_than_sequences(tokenizer, tmp_path):
    (tmp_path / "short.txt").write_text("It rained all night, and the river rose.\n")
    create_shards([tmp_path / "short.txt"], tokenizer, tmp_path / "shards", ShardSettings(max_seq_length=64, num_outputs=3))
    corpus = Corpus(tmp_path / "shards")
    assert len(write_npz(tmp_path / "shards", tokenizer.vocab, tmp_path / "npz", NpzSettings(dupe_factor=3), seed=0)) == len(corpus) == 1
    assert len(StaticSequences(tmp_path / "npz", len(tokenizer.vocab))) == 3


def test_files_without_rows_are_refused(folder, tmp_path):
    arrays = np.load(next(folder.iterdir()))
    np.savez(tmp_path / "a.npz", **{name: arrays[name][:0] for name in PUBLISHED})
    with pytest.raises(BortError, match="hold no sequence"):
        StaticSequences(tmp_path, 9)


def as_published(folder, output, save=np.savez_compressed):
    """Our files in the published form: object arrays of rows without padding, another name, no metadata."""
    output.mkdir()
    for number, path in enumerate(sorted(folder.iterdir())):
        file = np.load(path)
        counts = {"input_ids": file["valid_lengths"], "segment_ids": file["valid_lengths"]}
        arrays = {}
        for name in PUBLISHED:
            arrays[name] = file[name]
            if arrays[name].ndim == 2:
                count = counts.get(name, file["masked_lm_weights"].sum(axis=1).astype(int))
                arrays[name] = np.array([row[:length] for row, length in zip(file[name], count, strict=True)], dtype=object)
        save(output / f"part-{number:03d}.npz", **arrays)
    return output


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_the_published_form_is_read_with_allow_pickle_only(folder, tokenizer, tmp_path, save):
    published = as_published(folder, tmp_path / "published", save)
    with pytest.raises(BortError, match=r"part-000\.npz: the array 'input_ids' holds Python objects, .* give --allow_pickle$"):
        StaticSequences(published, len(tokenizer.vocab))
    read = StaticSequences(published, len(tokenizer.vocab), allow_pickle=True)
    ours = StaticSequences(folder, len(tokenizer.vocab))
    assert len(read) == len(ours)
    assert np.array_equal(read.lengths, ours.lengths)
    assert read.max_seq_length == ours.lengths.max()
    assert all(same(read.masked(0, index), ours.masked(0, index)) for index in range(len(ours)))


def test_rows_that_happen_to_be_of_one_length_are_read_too(tmp_path):
    # NumPy makes a two-dimensional array of Python numbers of them.
    rows = np.array([np.int32([0, 5, 4, 2]), np.int32([0, 4, 6, 2])], dtype=object)
    assert rows.shape == (2, 4)
    one = np.array([np.int32([1]), np.int32([2])], dtype=object)
    weights = np.array([np.float32([1]), np.float32([1])], dtype=object)
    lengths = np.int32([4, 4])
    np.savez(
        tmp_path / "part-000.npz",
        input_ids=rows,
        masked_lm_positions=one,
        masked_lm_ids=one,
        masked_lm_weights=weights,
        valid_lengths=lengths,
    )
    static = StaticSequences(tmp_path, 9, allow_pickle=True)
    assert static.masked(0, 1).token_ids.tolist() == [0, 4, 6, 2]
    assert static.masked(0, 1).positions.tolist() == [2]


def change(folder, output, name, value, path_name="shard_0001_of_0003.npz"):
    """A copy of a set in which one array of one file is another; None leaves it out."""
    output.mkdir()
    for path in folder.iterdir():
        if path.name != path_name:
            (output / path.name).write_bytes(path.read_bytes())
            continue
        arrays = dict(np.load(path))
        arrays[name] = value(arrays[name].copy()) if callable(value) else value
        np.savez(output / path.name, **{key: array for key, array in arrays.items() if array is not None})
    return output


def put(place, value):
    def changed(array):
        array[place] = value
        return array

    return changed


WRONG_FILES = {
    "no lengths": ("valid_lengths", None, "no array 'valid_lengths'"),
    "fewer rows": ("masked_lm_ids", lambda array: array[:-1], "rows of 'masked_lm_ids'"),
    "fewer predictions": ("masked_lm_ids", lambda array: array[:, :-1], "'masked_lm_ids' has the shape"),
    "ids that are no numbers": ("input_ids", lambda array: array.astype("U5"), "'input_ids' is a <U5 array"),
    "ids that are fractions": ("input_ids", lambda array: array.astype(np.float32), "'input_ids' is a float32 array"),
    "weights that are whole": ("masked_lm_weights", lambda array: array.astype(np.int32), "'masked_lm_weights' is a int32 array"),
    "a flat array": ("input_ids", lambda array: array.ravel(), "'input_ids' is a int32 array of shape"),
    "no rows": ("input_ids", lambda array: array[:0], "0 rows of 'input_ids'"),
    "no columns": ("input_ids", lambda array: array[:, :0], "of shape"),
    "a length beyond the row": ("valid_lengths", put(3, 33), r"sequence 3: its length is given as 33"),
    "a negative length": ("valid_lengths", put(4, -1), r"sequence 4: its length is given as -1"),
    "other settings": ("metadata", np.array('{"format": "bort-npz", "version": 1}'), "different texts or with different settings"),
    "another version": ("metadata", np.array('{"format": "bort-npz", "version": 99}'), "its metadata are not those of format bort-npz 1"),
    "metadata that are no JSON": ("metadata", np.array("{"), "its metadata are not those"),
}


@pytest.mark.parametrize("case", WRONG_FILES)
def test_a_file_that_does_not_fit_is_refused_by_name(case, folder, tokenizer, tmp_path):
    name, value, message = WRONG_FILES[case]
    with pytest.raises(BortError, match=message) as caught:
        StaticSequences(change(folder, tmp_path / "changed", name, value), len(tokenizer.vocab))
    assert str(tmp_path / "changed") in str(caught.value)
    assert "\n" not in str(caught.value)


WRONG_ROWS = {
    "an id beyond the vocabulary": ("input_ids", put((2, 1), 400), "token id 400 in a vocabulary of 400"),
    "a negative id": ("input_ids", put((2, 1), -1), "token id -1"),
    "an id beyond 32 bits": ("input_ids", lambda array: put((2, 1), 2**32 + 7)(array.astype(np.int64)), "token id 4294967303"),
    "a label beyond the vocabulary": ("masked_lm_ids", put((2, 0), 50267), "token id 50267"),
    "a position beyond the sequence": ("masked_lm_positions", put((2, 0), 999), "masked positions do not increase"),
    "a negative position": ("masked_lm_positions", put((2, 0), -1), "masked positions do not increase"),
    "a position twice": ("masked_lm_positions", put((2, slice(None)), 1), "masked positions do not increase"),
    "half a weight": ("masked_lm_weights", put((2, 5), 0.5), "weights of predictions other than 0 and 1"),
    "no weight": ("masked_lm_weights", put((2, 5), np.nan), "weights of predictions other than 0 and 1"),
}


@pytest.mark.parametrize("case", WRONG_ROWS)
def test_a_row_that_is_damaged_is_refused_by_number(case, folder, tokenizer, tmp_path):
    name, value, message = WRONG_ROWS[case]
    path = change(folder, tmp_path / "changed", name, value) / "shard_0001_of_0003.npz"
    static = StaticSequences(path.parent, len(tokenizer.vocab))
    first = len(np.load(path.with_name("shard_0000_of_0003.npz"))["valid_lengths"])
    static.masked(0, first + 1)
    with pytest.raises(BortError, match=rf"{path}, sequence 2: .*{message}"):
        static.masked(0, first + 2)


def test_sets_that_are_not_whole_or_of_another_vocabulary_are_refused(folder, tokenizer, tmp_path):
    with pytest.raises(BortError, match=r"no \*\.npz files; make them with: bort data --format npz"):
        StaticSequences(tmp_path, 9)
    with pytest.raises(BortError, match="made with another vocabulary"):
        StaticSequences(folder, len(tokenizer.vocab), vocab_fingerprint="0" * 64)
    StaticSequences(folder, len(tokenizer.vocab), vocab_fingerprint=tokenizer.vocab.fingerprint)
    for path in sorted(folder.iterdir())[:2]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(BortError, match="its 2 files are not one whole set"):
        StaticSequences(tmp_path, len(tokenizer.vocab))


@pytest.mark.parametrize(
    "rows",
    [
        np.array([np.int32([5]), "text"], dtype=object),
        np.array([np.int32([5]), np.float32([0.5])], dtype=object),
        np.array([np.int64([2**40]), np.int64([1, 2])], dtype=object),
        np.array([np.int32([-5]), np.int32([1, 2])], dtype=object),
        np.array([None, np.int32([[1, 2]])], dtype=object),
        np.array([np.int32([]), np.int32([])], dtype=object),
    ],
)
def test_pickled_rows_that_are_no_numbers_are_refused(folder, tokenizer, tmp_path, rows):
    changed = change(folder, tmp_path / "changed", "input_ids", rows)
    with pytest.raises(
        BortError, match=r"shard_0001_of_0003\.npz: .*'input_ids'.* row .*is not a list of numbers|a row of 'input_ids' is not"
    ):
        StaticSequences(changed, len(tokenizer.vocab), allow_pickle=True)


def test_a_pickled_row_shorter_than_its_length_is_refused(folder, tokenizer, tmp_path):
    def shortened(array):
        return np.array([row[: 2 if number == 2 else 32] for number, row in enumerate(array)], dtype=object)

    static = StaticSequences(change(folder, tmp_path / "changed", "input_ids", shortened), len(tokenizer.vocab), allow_pickle=True)
    first = len(np.load(folder / "shard_0000_of_0003.npz")["valid_lengths"])
    static.masked(0, first + 1)
    with pytest.raises(BortError, match="sequence 2: token id -1"):
        static.masked(0, first + 2)


def test_the_description_is_for_people(folder, corpus, tokenizer):
    description = StaticSequences(folder, len(tokenizer.vocab)).description
    assert description["settings"]["dupe_factor"] == 2
    assert description["corpus"] == corpus.fingerprint
    assert description["source_files"] == [{"path": str(path), "size": path.stat().st_size} for path in sorted(folder.iterdir())]
    json.dumps(description)
