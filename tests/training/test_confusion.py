"""Pictures of predictions: the counts by hand, and the files are pictures whatever the labels and the rows."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.image import imread

from bort.training.confusion import confusion_counts, draw_confusion_matrix, draw_scores


def test_counts_are_true_class_by_predicted_class():
    truth, predictions = np.array([0, 0, 0, 1, 2]), np.array([0, 1, 1, 1, 0])
    np.testing.assert_array_equal(confusion_counts(4, truth, predictions), [[1, 2, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(confusion_counts(2, np.array([]), np.array([])), np.zeros((2, 2)))


@pytest.mark.parametrize("labels", [("no", "yes"), ("neutral", "entailment", "contradiction"), tuple("ABCD"), ("$x^", "a" * 200)])
@pytest.mark.parametrize("num_rows", [0, 1, 50])
def test_a_confusion_matrix_is_drawn_for_any_labels_and_rows(labels, num_rows, tmp_path):
    draws = np.random.default_rng(0).integers(0, len(labels), (2, num_rows))
    draw_confusion_matrix(tmp_path / "matrix.png", labels, *draws, title="RTE $ dev")
    picture = imread(tmp_path / "matrix.png")
    assert min(picture.shape[:2]) > 100
    assert [path.name for path in tmp_path.iterdir()] == ["matrix.png"]


def test_other_predictions_give_another_picture(tmp_path):
    truth = np.array([0, 0, 1, 1])
    for name, predictions in (("right", truth), ("wrong", 1 - truth)):
        draw_confusion_matrix(tmp_path / f"{name}.png", ("no", "yes"), truth, predictions, title="dev")
    assert (imread(tmp_path / "right.png") != imread(tmp_path / "wrong.png")).any()


@pytest.mark.parametrize("predictions", [[], [1.0], [1.0, 2.0, np.nan], [np.inf, np.nan, np.nan], list(np.linspace(0, 5, 20_000))])
def test_scores_are_drawn_whatever_they_are(predictions, tmp_path):
    truth = np.linspace(0.0, 5.0, len(predictions))
    draw_scores(tmp_path / "scores.png", truth, np.array(predictions), title="STS-B dev")
    assert imread(tmp_path / "scores.png").std() > 0


def test_a_folder_in_the_place_of_the_picture_is_an_error_and_stays(tmp_path):
    with pytest.raises(IsADirectoryError):
        draw_scores(tmp_path, np.zeros(1), np.zeros(1), title="dev")
