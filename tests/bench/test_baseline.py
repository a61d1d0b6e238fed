"""Words alone: the features of a pair, the model beside scikit-learn's own pipeline, and the verb on the project's and on public rows."""

from __future__ import annotations

import json
import math
import random
import shutil
import warnings

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from bort.bench.baseline import WordFeatures, WordModel, bench_baseline
from bort.cli import main
from bort.errors import BortError
from bort.tasks import TASKS, Example, get_task
from bort.tasks.metrics import score


def rows(*texts_and_label):
    """Examples of one or two texts and a label each."""
    return [Example(number, row[:-1], row[-1], number + 1) for number, row in enumerate(texts_and_label)]


PAIRS = rows(("a b c", "a b d", 1), ("a b c", "a b c", 1), ("e f", "g h g", 0), ("Where? There!", "there", 0))


def test_the_row_of_a_pair_is_both_texts_their_difference_their_product_and_their_cosine():
    features = WordFeatures(PAIRS)
    row = features(PAIRS).toarray()
    size = len(features.vectorizer.vocabulary_)
    assert row.shape == (len(PAIRS), 4 * size + 1)
    first, second, difference, product = (row[:, side * size : (side + 1) * size] for side in range(4))
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1.0)
    np.testing.assert_allclose(difference, np.abs(first - second))
    np.testing.assert_allclose(product, first * second)
    np.testing.assert_allclose(row[:, -1], (first * second).sum(axis=1))
    np.testing.assert_allclose(row[1:3, -1], [1.0, 0.0], atol=1e-12)
    swapped = features([Example(0, example.texts[::-1], 0, 1) for example in PAIRS]).toarray()
    np.testing.assert_allclose(swapped, np.hstack([second, first, difference, product, row[:, -1:]]))


def test_words_are_lower_case_and_punctuation_marks_are_words():
    assert set(WordFeatures(rows(("Where? I", 0))).vectorizer.vocabulary_) == {"where", "?", "i", "where ?", "? i"}


def test_a_text_that_many_rows_share_counts_once():
    passage = [("the long passage", f"question {number}", 0) for number in range(5)]
    idf = dict(zip(*(lambda v: (v.get_feature_names_out(), v.idf_))(WordFeatures(rows(*passage)).vectorizer), strict=True))
    # Six texts: the passage and five questions. Smooth: ln((1 + texts) / (1 + texts with the word)) + 1.
    assert idf["passage"] == pytest.approx(math.log(7 / 2) + 1)
    assert idf["question"] == pytest.approx(math.log(7 / 6) + 1)


def test_one_text_is_the_pipeline_that_a_reader_would_write(repository):
    task = get_task("SST-2", repository / "test_data")
    train, dev = task.examples("train"), task.examples("dev")
    tfidf = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+|[^\w\s]")
    pipeline = make_pipeline(tfidf, LogisticRegression(C=10.0, max_iter=10_000))
    pipeline.fit([example.texts[0] for example in train], [example.label for example in train])
    predictions = WordModel(task, train).predict(dev)
    np.testing.assert_array_equal(predictions, pipeline.predict([example.texts[0] for example in dev]))
    assert score(task, dev, predictions)["accuracy"] >= 0.9


def overlapping_pairs(number, source):
    """Texts of six words of sixty: of odd rows five are shared, of even rows one; a word is as frequent under either label."""
    words = [f"word{word}" for word in range(60)]
    made = []
    for row in range(number):
        first = source.sample(words, 6)
        kept = first[: 5 if row % 2 else 1]
        second = kept + source.sample([word for word in words if word not in first], 6 - len(kept))
        made.append((" ".join(first), " ".join(source.sample(second, 6)), row % 2))
    return rows(*made)


def test_a_pair_is_judged_by_what_its_texts_have_in_common():
    source = random.Random(5)
    train, dev = overlapping_pairs(200, source), overlapping_pairs(60, source)
    assert score(get_task("MRPC"), dev, WordModel(get_task("MRPC"), train).predict(dev))["accuracy"] >= 0.9
    assert score(get_task("STS-B"), dev, WordModel(get_task("STS-B"), train).predict(dev))["pearson"] >= 0.8


@pytest.mark.parametrize("name", ["RTE", "STS-B", "CB"])
def test_a_row_is_judged_without_the_others(name, repository):
    task = get_task(name, repository / "test_data")
    model, dev = WordModel(task, task.examples("train")), task.examples("dev")
    together = model.predict(dev)
    assert len(set(together.tolist())) > 1
    np.testing.assert_allclose(together, [model.predict([example])[0] for example in dev], rtol=1e-9)


def test_a_class_without_training_rows_is_never_chosen():
    train = rows(("yes", "so", 1), ("no", "not", 2), ("yes", "yes", 1), ("no", "no", 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert WordModel(get_task("CB"), train).predict(rows(("yes", "so", 0), ("no", "no", 0), ("?", "!", 0)))[:2].tolist() == [1, 2]
    with pytest.raises(BortError, match="all 2 training rows have the same label"):
        WordModel(get_task("CB"), train[::2])


def test_texts_without_words_are_refused():
    with pytest.raises(BortError, match="CB: the texts of all 2 training rows are blank"):
        WordModel(get_task("CB"), rows((" ", "\u2003", 1), ("", "\t", 2)))


def test_a_task_named_twice_is_judged_once(repository):
    task = get_task("RTE", repository / "test_data")
    assert [result["task"] for result in bench_baseline([task, task], 100, False)["tasks"]] == ["RTE"]


def without_seconds(record):
    return [{key: value for key, value in result.items() if key != "seconds"} for result in record["tasks"]]


def test_the_same_rows_give_the_same_numbers(repository):
    tasks = [get_task(name, repository / "test_data") for name in ("RTE", "STS-B", "MNLI")]
    first, second = bench_baseline(tasks, None, False), bench_baseline(tasks, None, False)
    assert without_seconds(first) == without_seconds(second)
    assert [(result["task"], set(result["dev"])) for result in first["tasks"]] == [
        ("RTE", {"dev"}), ("STS-B", {"dev"}), ("MNLI", {"dev_matched", "dev_mismatched"}),
    ]  # fmt: skip
    assert first["tasks"][1]["score"] == pytest.approx(np.mean([first["tasks"][1]["dev"]["dev"][name] for name in ("pearson", "spearman")]))


def test_the_verb_prints_every_metric_and_a_json_line(repository, tmp_path, capsys):
    arguments = ["--task", "sst", "MNLI", "STS-B", "--data_root", str(repository / "test_data"), "--limit", "100"]
    assert main(["bench", "baseline", *arguments, "--json", str(tmp_path / "line.json")]) == 0
    printed = capsys.readouterr().out
    line = printed.splitlines()[-1]
    assert (tmp_path / "line.json").read_text(encoding="utf-8") == line + "\n"
    record = json.loads(line)
    assert [result["task"] for result in record["tasks"]] == ["SST-2", "MNLI", "STS-B"]
    assert [result["train_rows"] for result in record["tasks"]] == [
        100,
        len(get_task("MNLI", repository / "test_data").examples("train")),
        80,
    ]
    for result in record["tasks"]:
        for segment, metrics in result["dev"].items():
            assert tuple(metrics) == get_task(result["task"]).metrics
            for metric, value in metrics.items():
                cells = [
                    cell.strip() for cell in next(row for row in printed.splitlines() if f"{value:.4f}" in row and metric in row).split("│")
                ]
                assert f"{result['majority'][segment][metric]:.4f}" in cells
    assert "the first 100 training rows" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "AX"], "AX has no training rows; models of MNLI label it"),
        (["--task", "RTE", "--limit", "0"], "--limit must be at least 1"),
        (["--task", "nothing"], 'no task "nothing"'),
        (["--task", "SST-2", "--limit", "1"], "all 1 training rows have the same label"),
    ],
)
def test_what_cannot_be_judged_is_one_line(arguments, message, repository, capsys):
    assert main(["bench", "baseline", *arguments, "--data_root", str(repository / "test_data")]) == 2
    assert message in capsys.readouterr().err


def test_a_missing_file_is_found_before_anything_is_read(repository, tmp_path, capsys):
    shutil.copytree(repository / "test_data/glue/SST-2", tmp_path / "glue/SST-2")
    (tmp_path / "glue/SST-2/train.tsv").write_text("sentence\tlabel\ndamaged\t7\n")
    assert main(["bench", "baseline", "--task", "SST-2", "RTE", "--data_root", str(tmp_path)]) == 2
    printed = capsys.readouterr()
    assert "RTE: no train.tsv" in printed.err
    assert not printed.out


@pytest.mark.filterwarnings("ignore:.*left out")
def test_every_task_that_has_training_rows_is_judged(repository):
    tasks = [task for task in (get_task(task.name, repository / "test_data") for task in TASKS) if task.segment_names("train")]
    assert len(tasks) == 20
    record = bench_baseline(tasks, 100, False)
    for task, result in zip(tasks, record["tasks"], strict=True):
        assert result["train_rows"] <= 100
        assert set(result["dev"]) == set(task.segment_names("dev"))
        assert all(tuple(metrics) == task.metrics and all(map(math.isfinite, metrics.values())) for metrics in result["dev"].values())


def test_words_are_worth_something_on_public_rows(shared):
    record = bench_baseline([get_task(name, shared / "data") for name in ("SST-2", "STS-B")], None, False)
    scores = {result["task"]: result["score"] for result in record["tasks"]}
    assert 0.75 < scores["SST-2"] < 0.85
    assert 0.70 < scores["STS-B"] < 0.75
