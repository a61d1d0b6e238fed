"""What INT8 models are judged by: the score is that of fine-tuning, and agreement what its name says."""

from __future__ import annotations

import numpy as np
import pytest

from bort.errors import BortError
from bort.model_directory import TrainedTask, read_model_directory
from bort.tasks import get_task
from bort.tasks.metrics import task_score
from bort.training.prediction import score_segments

pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

from bort.export.exported_model import ExportedModel
from bort.export.int8_check import Check, agreement, decide
from bort.export.int8_rows import Reader

from .test_exported_model import gluon, write_classifier, write_export


def test_agreement_is_the_share_of_equal_decisions_and_of_scores_their_correlation():
    assert agreement(np.array([0, 1, 2, 1]), np.array([0, 1, 1, 1])) == 0.75
    scores = np.array([1.0, 2.0, 4.0, 3.0], dtype=np.float32)
    assert agreement(2 * scores + 1, scores) == pytest.approx(1.0)
    assert agreement(-scores, scores) == pytest.approx(-1.0)
    # A model that answers everything alike agrees in nothing.
    assert agreement(np.ones(4, dtype=np.float32), scores) == 0.0


@pytest.mark.parametrize("name", ["RTE", "STS-B", "MNLI", "ReCoRD"])
def test_the_score_is_that_of_the_gluon_model(name, tokenizer, repository, tmp_path):
    folder = write_classifier(name, tokenizer, repository, tmp_path / "best")
    model = ExportedModel.from_directory(write_export(folder, tmp_path / "exported"))
    trained = read_model_directory(folder).task
    check = Check.read(folder, trained, name, repository / "test_data")
    points, decided = check.judge(model)
    task = get_task(name, repository / "test_data")
    expected = score_segments(gluon(folder), tokenizer, trained, task, task.segment_names("dev"), 8)
    assert points == pytest.approx(100 * task_score(task, expected), abs=1e-3)
    assert len(decided) == sum(len(task.examples(segment)) for segment in task.segment_names("dev"))
    if name in ("RTE", "STS-B"):
        # Without labels the same is decided of the same rows.
        rows = Reader.of("classifier", tokenizer, model.folder.config, trained).inputs(check.examples["dev"])
        np.testing.assert_allclose(decide(model, rows), decided, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("SST-2", "was fine-tuned on RTE; it cannot label SST-2; check it on RTE"),
        ("AX-b", "AX-b has no dev rows to check on; it has test"),
        ("SuperGLUE-RTE", "no val.jsonl"),
        ("nonsense", 'no task "nonsense"'),
    ],
)
def test_a_task_that_cannot_be_scored_is_refused(repository, tmp_path, name, wrong):
    root = repository / "test_data" if name != "SuperGLUE-RTE" else tmp_path
    with pytest.raises(BortError, match=wrong):
        Check.read("best", TrainedTask("RTE", ("not_entailment", "entailment"), 48), name, root)


def test_changed_labels_are_refused(repository):
    with pytest.raises(BortError, match=r"its labels .* are not those of RTE"):
        Check.read("best", TrainedTask("RTE", ("entailment", "not_entailment"), 48), "RTE", repository / "test_data")
