"""The fine-tuning loop: train on a task, keep the epoch with the best dev score, predict the test set, on any number of workers.

Notable: an epoch is judged by the task's own score, the mean over its metrics and dev segments; its classifier is on disk before the next
begins, and pictures and leaderboard files are made with what is on disk. A run that is killed at any moment goes on from its newest
checkpoint and ends with the same bits: what an update is made of is a function of its number, whether to stop early of the best epoch's,
and entries of the journal never reach across a checkpoint.
"""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bort.config import BortConfig
from bort.engine import ClassifierEngine
from bort.errors import BortError
from bort.files import whole_directory, write_text
from bort.model_directory import CARD_FILE, CONFIG_FILE, PARAMETERS_FILE, TrainedTask
from bort.parameters import read_parameters
from bort.randomness import dropout_seed
from bort.settings import FinetuningRunSettings, FinetuningSettings
from bort.tasks import Task
from bort.tasks.batches import TrainingPlan
from bort.tasks.cache import encode_segment
from bort.tasks.leaderboard import write_predictions
from bort.tasks.metrics import majority_score, score, task_score
from bort.tokenizer import Tokenizer
from bort.training.best import BEST_FOLDER, BestModel, TrainedModel, read_evaluation
from bort.training.checkpoint import (
    divergence,
    explained_writing,
    forget_later_work,
    remove_checkpoints,
    remove_partials,
    remove_whole,
    require_same,
    require_sound,
    resume_run,
    write_checkpoint,
)
from bort.training.confusion import draw_confusion_matrix, draw_scores
from bort.training.finetuning_card import finetuning_card
from bort.training.finetuning_result import RESULT_FILE, FinetuningResult, Metrics, read_result
from bort.training.journal import Journal, read_metrics
from bort.training.schedule import LinearSchedule
from bort.training.task_rows import TaskRows, predict_together, read_rows

PREDICTIONS_FOLDER, MATRIX_FILE, SCORES_FILE = "predictions", "confusion_matrix.png", "scores.png"

# How an update is divided; the outcome depends on the size of the whole alone.
_DIVISION = ("batch_size", "accumulate")


def finetune(
    engine: ClassifierEngine,
    config: BortConfig,
    tokenizer: Tokenizer,
    task: Task,
    output: Path,
    settings: FinetuningSettings,
    run: FinetuningRunSettings,
    more_settings: Mapping[str, Any] | None = None,
    facts: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
    cache: Path | None = None,
) -> FinetuningResult | None:
    """Train a classifier for ``task``, which has training rows; write ``best/``, ``predictions/`` and, last, ``result.json``.

    Args:
        engine: the classifier, on this worker.
        config: sizes of its encoder.
        output: run folder. A complete run of the same settings that it holds is not trained again.
        more_settings: further settings that decide the outcome, ready for JSON.
        facts: for the classifier's card, as :func:`bort.training.finetuning_card.finetuning_card` takes them.
        notes: lines to print once nothing stands against the run.
        cache: where tokenised rows are kept; None keeps none.

    Returns:
        The result on worker 0, None on the others.

    Raises:
        BortError: if a training or dev file is missing, any file is damaged, a checkpoint or a result in the folder was made with other
            settings, training diverges, or something cannot be written. A task without test files is trained all the same.
    """
    if settings.keep_question and task.benchmark != "RACE":
        raise BortError(f"--keep_question is for RACE, whose articles are followed by a question; {task.name} has none")
    settings = replace(settings, max_len=min(settings.max_len, config.max_position_embeddings))
    is_first = engine.rank == 0
    data = read_rows(engine, task, tokenizer, settings, cache)
    plan = TrainingPlan(
        data.train.lengths, settings.batch_size, settings.accumulate, engine.world_size, settings.num_buckets, settings.seed
    )
    steps = plan.steps_per_epoch
    total = settings.training_steps or settings.epochs * steps
    settings = replace(settings, epochs=-(-total // steps))
    schedule = LinearSchedule(settings.lr, total, settings.warmup_ratio, settings.use_scheduler)
    outcome = asdict(settings) | dict(more_settings or {}) | {"task": task.name, "model": config.to_dict()}
    outcome |= {"global_batch": settings.batch_size * engine.world_size * settings.accumulate}
    outcome |= {"vocabulary": tokenizer.vocab.fingerprint, "rows": data.fingerprint()}
    division = {name: outcome.pop(name) for name in _DIVISION}

    if run.resume == "auto" and engine.agree(int(is_first and (output / RESULT_FILE).exists())):
        return _complete_already(output, outcome, run) if is_first else None
    first_step = resume_run(engine, output, run.resume, outcome)
    if is_first:
        best = BestModel(output, first_step, "score", higher_is_better=True)
        _clear(output, first_step)
        with explained_writing(output, output):
            write_text(output / CONFIG_FILE, json.dumps(config.to_dict(), indent=2) + "\n")
    trained = TrainedTask(task.name, task.labels, settings.max_len, settings.keep_question)
    majority = {name: majority_score(task, examples) for name, examples in data.dev_examples.items()}
    done, best_step = first_step, engine.agree(best.step if is_first else 0)

    def result(evaluation: Mapping[str, Any], seconds: float, files: Iterable[str] = ()) -> FinetuningResult:
        return FinetuningResult(
            task=task.name,
            score=evaluation["score"],
            best_epoch=evaluation["epoch"],
            epochs=-(-done // steps),
            steps=done,
            dev=evaluation["dev"],
            majority=majority,
            settings=outcome | division,
            parameters=sum(array.size for array in engine.parameters().values()),
            train_rows=len(data.train),
            seconds=seconds,
            files=tuple(files),
        )

    def card(so_far: FinetuningResult) -> str:
        known = {"workers": engine.world_size} | dict(facts or {})
        shown = {name: value for name, value in so_far.settings.items() if name != "model"}
        return finetuning_card(config, task, shown, asdict(so_far), known)

    def stops_early() -> bool:
        # Evaluations since the best, which both the number of the update and the best epoch's tell.
        return best_step > 0 and 0 < settings.early_stop <= done // steps - -(-best_step // steps)

    def evaluate() -> int:
        """Judge the classifier as it is, and return the step of the best one."""
        logits = data.dev_logits(engine, settings.dev_batch_size, task.num_classes)
        _require_finite(logits, output, done)
        if is_first:
            dev = _scores(task, data, logits)
            own_score = task_score(dev)
            evaluation = {"score": own_score, "epoch": -(-done // steps), "dev": dev}
            journal.record(done, "eval", {"score": own_score} | _flatten(dev))
            if best.is_beaten_by(evaluation):
                text = card(result(evaluation, clock.seconds()))
                best.replace(done, evaluation, TrainedModel(config, engine.parameters(), tokenizer, text, trained))
        return engine.agree(best.step if is_first else 0)

    # The journal is written all the time, so what the system refuses inside is most likely its.
    with explained_writing(output, output), Journal(output if is_first else None, total, first_step, f"finetune {task.name}") as journal:
        for note in notes:
            journal.note(note)
        journal.note(_spoken_plan(task, data, settings, engine.world_size, total, plan, first_step))
        clock = _Clock(_seconds_before(output) if is_first else 0.0)
        while done < total and not stops_early():
            for micro in range(settings.accumulate):
                mine = plan.rows(done, micro, engine.rank)
                if len(mine):
                    seed = dropout_seed(settings.seed, done, micro, engine.rank)
                    engine.accumulate(data.train.batch(mine, settings.batch_size, seed))
            learning_rate = schedule(done)
            engine.update(learning_rate)
            done += 1
            journal.advance()
            evaluates = done == total or done % steps == 0
            saves = evaluates or (run.ckpt_interval > 0 and done % run.ckpt_interval == 0)
            if saves or done % run.log_interval == 0:
                sums = engine.drain()
                measured = training_measures(sums, task.is_regression)
                require_sound(measured, "loss", output, done)
                journal.record(done, "train", measured | {"learning_rate": learning_rate} | clock.measures(sums["rows"]))
            if evaluates:
                best_step = evaluate()
            if is_first and saves:
                write_checkpoint(output, done, engine.state(), outcome, tokenizer, run.keep_last)
                best.keep_from(done)
        if best_step == 0:
            # Resumed after its last update, in a folder that knows no best model.
            evaluate()
        seconds = clock.seconds()

    with explained_writing(output, output):
        files = _hand_in(engine, task, data, tokenizer, settings, output, cache, done)
        if not is_first:
            return None
        final = result(read_evaluation(output / BEST_FOLDER, "score"), seconds, files)
        write_text(output / BEST_FOLDER / CARD_FILE, card(final))
        final.write(output)
        if run.keep_last:
            remove_checkpoints(output, after=-1)
    return final


def training_measures(sums: Mapping[str, float], is_regression: bool) -> dict[str, float]:
    """Of a drained window: loss a row, share of rows whose class is right, norms, and the share of padded slots."""
    rows = max(sums["rows"], 1.0)
    measures = {
        "loss": sums["loss"] / rows,
        "accuracy": sums["correct"] / rows,
        "gradient_norm": sums["gradient_norm"] / max(sums["updates"], 1.0),
        "parameter_norm": sums["parameter_norm"],
        "padding": 1.0 - sums["tokens"] / max(sums["slots"], 1.0),
    }
    if is_regression:
        del measures["accuracy"]
    return measures | {name: sums[name] for name in ("loss_scale", "skipped_updates") if name in sums}


class _Clock:
    """What the clock and the system say between two entries of the journal.

    Args:
        before: seconds that the run took before it was interrupted.
    """

    def __init__(self, before: float) -> None:
        self._start = self._latest = time.perf_counter()
        self._before = before

    def seconds(self) -> float:
        """Of the whole run so far."""
        return self._before + time.perf_counter() - self._start

    def measures(self, rows: float) -> dict[str, float]:
        """Rows a second since the last call, of all workers; seconds of the whole run; peak resident MB of this process."""
        now = time.perf_counter()
        window, self._latest = now - self._latest, now
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return {"rows_per_second": rows / window, "seconds": self.seconds(), "memory_mb": memory}


def _seconds_before(output: Path) -> float:
    """Seconds at the last entry that the journal of a resumed run has kept."""
    return max((entry["seconds"] for entry in read_metrics(output) if isinstance(entry.get("seconds"), float)), default=0.0)


def _complete_already(output: Path, outcome: Mapping[str, Any], run: FinetuningRunSettings) -> FinetuningResult:
    """The result in the folder, if it is that of these settings."""
    found = read_result(output)
    require_same(output / RESULT_FILE, {name: value for name, value in found.settings.items() if name not in _DIVISION}, outcome)
    print(f"{output}: complete already, so nothing is trained; --resume never trains it again")
    # A kill may have come between the result and this.
    remove_partials(output)
    if run.keep_last:
        remove_checkpoints(output, after=-1)
    return found


def _clear(output: Path, first_step: int) -> None:
    """Remove what belongs to a run that is not gone on with, first of all what says that it is complete."""
    (output / RESULT_FILE).unlink(missing_ok=True)
    forget_later_work(output, first_step)
    remove_partials(output / BEST_FOLDER)
    if (output / PREDICTIONS_FOLDER).exists():
        remove_whole(output / PREDICTIONS_FOLDER)
    for name in (MATRIX_FILE, SCORES_FILE):
        (output / name).unlink(missing_ok=True)


def _scores(task: Task, data: TaskRows, logits: Mapping[str, NDArray[np.float32]]) -> Metrics:
    return {name: score(task, examples, task.decide(examples, logits[name])) for name, examples in data.dev_examples.items()}


def _flatten(metrics: Metrics) -> dict[str, float]:
    """``{"f1": …}`` for one segment, ``{"dev_matched_accuracy": …}`` for several."""
    return {
        (name if len(metrics) == 1 else f"{segment}_{name}"): value for segment, values in metrics.items() for name, value in values.items()
    }


def _require_finite(logits: Mapping[str, NDArray[np.float32]], output: Path, step: int) -> None:
    if not all(np.isfinite(values).all() for values in logits.values()):
        raise BortError(divergence(output, step, "an output of the model is not finite"))


def _hand_in(
    engine: ClassifierEngine,
    task: Task,
    data: TaskRows,
    tokenizer: Tokenizer,
    settings: FinetuningSettings,
    output: Path,
    cache: Path | None,
    done: int,
) -> list[str]:
    """With the best model, draw its errors on the dev rows and write all leaderboard files; returns their names within ``output``."""
    _load_best(engine, output)
    is_first = engine.rank == 0
    logits = data.dev_logits(engine, settings.dev_batch_size, task.num_classes)
    if is_first:
        _draw_errors(task, data, logits, output)
    answers = []
    for other, segments in data.unseen:
        predictions = {}
        for name, examples in segments.items():
            rows = encode_segment(other, name, examples, tokenizer, settings.max_len, settings.keep_question, cache)
            test_logits = predict_together(engine, rows, settings.dev_batch_size, task.num_classes)
            _require_finite({name: test_logits}, output, done)
            predictions[name] = other.decide(examples, test_logits)
        answers.append((other, segments, predictions))
    if not is_first or not answers:
        return []
    with whole_directory(output / PREDICTIONS_FOLDER) as partial:
        written = [path.name for other, segments, found in answers for path in write_predictions(other, segments, found, partial)]
    return [f"{PREDICTIONS_FOLDER}/{name}" for name in written]


def _load_best(engine: ClassifierEngine, output: Path) -> None:
    """Give every worker the parameters that worker 0 has on its disk."""
    own = engine.parameters()
    # Summed with zeros they reach the workers that have no such disk.
    kept = read_parameters(output / BEST_FOLDER / PARAMETERS_FILE) if engine.rank == 0 else {name: np.zeros_like(own[name]) for name in own}
    engine.load_state({name: engine.sum_over_workers(kept[name]) for name in sorted(own)})


def _draw_errors(task: Task, data: TaskRows, logits: Mapping[str, NDArray[np.float32]], output: Path) -> None:
    predictions = np.concatenate([task.decide(examples, logits[name]) for name, examples in data.dev_examples.items()])
    truth = np.array([example.label for examples in data.dev_examples.values() for example in examples], dtype=np.float64)
    title = f"{task.name}: {' and '.join(data.dev_examples)}, {len(truth):,} rows"
    if task.is_regression:
        draw_scores(output / SCORES_FILE, truth, predictions, title)
    else:
        draw_confusion_matrix(output / MATRIX_FILE, [str(label) for label in task.leaderboard_labels], truth, predictions, title)


def _spoken_plan(
    task: Task, data: TaskRows, settings: FinetuningSettings, world_size: int, total: int, plan: TrainingPlan, first_step: int
) -> str:
    """What the run will do, on one line."""
    size = settings.batch_size * settings.accumulate * world_size
    workers = f"{world_size} worker{'s' if world_size > 1 else ''} × {settings.accumulate} × {settings.batch_size}"
    rows = f"{len(data.train):,} rows, {' and '.join(f'{len(rows):,}' for rows in data.dev.values())} dev rows"
    epochs = f"{total:,} updates = {total / plan.steps_per_epoch:g} epochs"
    going_on = f", going on from step {first_step}" if first_step else ""
    return f"run: {task.name}, {rows}, {epochs}, each of {size} rows ({workers}), {plan.padding():.1%} padding{going_on}"
