"""The project's own data: it reads, it is as large as it says, and a small model can learn from it."""

from __future__ import annotations

import itertools
import json
import re
import unicodedata
import warnings
from collections import Counter

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from bort.tasks import TASKS, get_task
from bort.tasks.metrics import majority_score, pearson, score

SIZES = {"SST-2": (160, 40, 20), "RTE": (200, 50, 20), "STS-B": (80, 24, 16)}


def sentences(path):
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line]


@pytest.fixture
def own(repository):
    return repository / "test_data"


def test_corpus_has_documents_sentences_and_scripts(own):
    files = sorted((own / "corpus").glob("*.txt"))
    assert len(files) == 5
    lines = [line for file in files for line in sentences(file)]
    assert len(lines) == 229
    assert len(set(lines)) == len(lines)
    assert all(line == line.strip() and len(line) < 160 for line in lines)
    assert all(file.read_text(encoding="utf-8").count("\n\n") >= 4 and "\n\n\n" not in file.read_text(encoding="utf-8") for file in files)
    english = [line for file in files if file.name != "many_languages.txt" for line in sentences(file)]
    assert 0.65 < len(english) / len(lines) < 0.8
    scripts = Counter(unicodedata.name(letter).split()[0] for line in lines for letter in line if letter.isalpha())
    assert {"LATIN", "GREEK", "CYRILLIC", "ARABIC", "DEVANAGARI", "HIRAGANA", "CJK", "HANGUL"} <= set(scripts)
    assert any(unicodedata.category(letter) == "So" for line in lines for letter in line)


def test_heldout_sentences_are_not_in_the_corpus(own):
    heldout = sentences(own / "heldout/heldout.txt")
    assert len(heldout) == 30
    assert not set(heldout) & {line for file in (own / "corpus").glob("*.txt") for line in sentences(file)}


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_every_task_reads_and_no_row_is_both_learned_and_judged(task, own):
    task = get_task(task.name, own)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rows = {segment.name: task.examples(segment.name) for segment in task.segments}
    assert [str(warning.message).partition(": ")[2][:15] for warning in caught] == (["left out 1 rows"] if task.name == "QQP" else [])
    if task.name in SIZES:
        assert tuple(len(examples) for examples in rows.values()) == SIZES[task.name]
    else:
        assert all(4 <= len(examples) <= 25 for examples in rows.values())
    for name, examples in rows.items():
        assert all(text for example in examples for text in example.texts)
        assert all((example.label is None) == name.startswith("test") for example in examples)
    texts = [{example.texts for example in examples} for examples in rows.values()]
    assert sum(map(len, texts)) == sum(map(len, rows.values())) == len(set.union(*texts))


def test_the_byte_order_mark_and_the_trailing_space_are_where_the_official_files_have_them(own):
    assert (own / "glue/MRPC/train.tsv").read_bytes().startswith(b"\xef\xbb\xbf")
    assert all(example.texts[0].endswith(" ") for example in get_task("SST-2", own).examples("train"))


def json_rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_layouts_of_nested_files_are_all_shown(own):
    passages = {
        name: [row["passage"]["text"] for row in json_rows(own / f"superglue/MultiRC/{name}.jsonl")] for name in ("train", "val", "test")
    }
    assert all("<b>Sent 1: </b>" in text for text in passages["train"])
    assert not any("<" in text for name in ("val", "test") for text in passages[name])
    assert all(isinstance(row["idx"], str) for row in json_rows(own / "superglue/AX-b/AX-b.jsonl"))
    articles = sorted((own / "race").glob("*/*/*.txt"))
    assert {file.parent.parent.name + file.parent.name for file in articles} == {
        segment + level for segment in ("train", "dev", "test") for level in ("high", "middle")
    }
    assert not any(file.read_bytes().endswith(b"\n") for file in articles)


def test_entities_of_record_overlap_and_every_query_has_right_and_wrong_candidates(own):
    rows = [row["passage"] for row in json_rows(own / "superglue/ReCoRD/train.jsonl")]
    assert all("\n@highlight\n" in row["text"] for row in rows)
    places = [sorted((entity["start"], entity["end"]) for entity in row["entities"]) for row in rows]
    assert any(second[0] <= first[1] for place in places for first, second in itertools.pairwise(place))
    dev = get_task("ReCoRD", own).examples("dev")
    labels = {example.id: {other.label for other in dev if other.id == example.id} for example in dev}
    assert len(labels) > 1
    assert set(map(frozenset, labels.values())) == {frozenset({0, 1})}


def test_pairs_for_gender_parity_differ_in_a_pronoun_alone(own):
    rows = json_rows(own / "superglue/AX-g/AX-g.jsonl")
    assert [row["idx"] for row in rows] == list(range(16))
    words = [re.sub(r"\b(he|she|his|her|him)\b", "*", f"{row['premise']} {row['hypothesis']}") for row in rows]
    assert words[::2] == words[1::2]
    assert len(set(words)) == 8


def words(examples):
    return [" ".join(example.texts) for example in examples]


@pytest.mark.parametrize(("name", "at_least"), [("SST-2", 0.95), ("RTE", 0.80)])
def test_words_alone_beat_the_majority_class(name, at_least, own):
    task = get_task(name, own)
    train, dev = task.examples("train"), task.examples("dev")
    counts = CountVectorizer(token_pattern=r"\S+")
    model = LogisticRegression(max_iter=1000).fit(counts.fit_transform(words(train)), [example.label for example in train])
    majority = majority_score(task, dev)["accuracy"]
    assert 0.52 <= majority <= 0.55
    assert score(task, dev, model.predict(counts.transform(words(dev))))["accuracy"] >= at_least


def test_similarity_follows_the_share_of_words_in_common(own):
    for segment in ("train", "dev"):
        examples = get_task("STS-B", own).examples(segment)
        pairs = [[set(re.findall(r"\w+", text.lower())) for text in example.texts] for example in examples]
        overlap = np.array([len(first & second) / len(first | second) for first, second in pairs])
        assert pearson(overlap, np.array([example.label for example in examples])) > 0.7
