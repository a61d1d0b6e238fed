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
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
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
from bort.tasks.metrics import score, task_score
from bort.tokenizer import Tokenizer
from bort.training.best import BEST_FOLDER, BestModel, TrainedModel, known_best, read_evaluation
from bort.training.checkpoint import (
    explained_writing,
    forget_later_work,
    remove_checkpoints,
    remove_partials,
    remove_whole,
    require_own,
    require_same,
    require_sound,
    resume_run,
    write_checkpoint,
)
from bort.training.confusion import draw_confusion_matrix, draw_scores
from bort.training.finetuning_job import Job, require_finite
from bort.training.finetuning_result import RESULT_FILE, FinetuningResult, Metrics, read_result
from bort.training.journal import Journal, read_metrics
from bort.training.lock import only_process
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
        output: run folder, which one process at a time works on. A complete run of the same settings that it holds is not trained again.
        more_settings: further settings that decide the outcome, ready for JSON.
        facts: for the classifier's card, as :func:`bort.training.finetuning_card.finetuning_card` takes them.
        notes: lines to print once nothing stands against the run.
        cache: where tokenised rows are kept; None keeps none.

    Returns:
        The result on worker 0, None on the others.

    Raises:
        BortError: if a training or dev file is missing, any file is damaged, the folder holds something else, or a checkpoint or a result
            made with other settings, or another process is at work there, training diverges, or something cannot be written. A task
            without test files is trained all the same.
    """
    if settings.keep_question and task.benchmark != "RACE":
        raise BortError(f"--keep_question is for RACE, whose articles are followed by a question; {task.name} has none")
    if settings.max_len > config.max_position_embeddings:
        raise BortError(f"max_len is {settings.max_len}, but the encoder has {config.max_position_embeddings} positions; give no more")
    data = read_rows(engine, task, tokenizer, settings, cache)
    plan = TrainingPlan(
        data.train.lengths, settings.batch_size, settings.accumulate, engine.world_size, settings.num_buckets, settings.seed
    )
    total = settings.training_steps or settings.epochs * plan.steps_per_epoch
    settings = replace(settings, epochs=-(-total // plan.steps_per_epoch))
    outcome = asdict(settings) | dict(more_settings or {}) | {"task": task.name, "model": config.to_dict()}
    outcome |= {"global_batch": settings.batch_size * engine.world_size * settings.accumulate}
    outcome |= {"vocabulary": tokenizer.vocab.fingerprint, "rows": data.fingerprint()}
    division = {name: outcome.pop(name) for name in _DIVISION}
    job = Job(engine, config, tokenizer, task, output, settings, run, data, plan, total, outcome, division, facts or {}, cache)
    is_first = engine.rank == 0
    with only_process(output, "run") if is_first else nullcontext():
        if run.resume == "auto" and engine.agree(int(is_first and (output / RESULT_FILE).exists())):
            return _complete_already(job) if is_first else None
        first_step, best = _begin(job)
        done, seconds = _train(job, first_step, best, notes)
        return _finish(job, done, seconds)


def _complete_already(job: Job) -> FinetuningResult:
    """The result in the folder, if it is that of these settings and what it tells of is there too; says what is not."""
    output, found = job.output, read_result(job.output)
    require_same(output / RESULT_FILE, {name: value for name, value in found.settings.items() if name not in _DIVISION}, job.outcome)
    best, anew = output / BEST_FOLDER, "--resume never trains it again"
    has_model = best.exists()
    if has_model and read_evaluation(best, "score")["score"] != found.score:
        raise BortError(f"{best}: not the classifier that {RESULT_FILE} tells of; {anew}")
    lost = next((file for file in found.files if not (output / file).is_file()), None)
    if lost is not None:
        labels = f"bort predict --task {job.task.name} --checkpoint {best} labels the test rows, and " if has_model else ""
        raise BortError(f"{output / lost}: not there, although the run is complete; {labels}{anew}")
    print(f"{output}: complete already, so nothing is trained; {anew}")
    if not has_model:
        print("its classifier was not kept: a sweep keeps that of its best run alone, unless told --keep_models all")
    for name, digest in job.test_rows.items():
        is_answered = f"{PREDICTIONS_FOLDER}/{name}" in found.files
        if is_answered and found.test_rows.get(name, digest) == digest:
            continue
        remedy = f"bort predict --task {job.data.task_of(name)} --checkpoint {best} labels them" if has_model else anew
        print(f"the test rows for {name} have {'changed' if is_answered else 'come'} since the run; {remedy}")
    # A kill may have come between the result and this.
    remove_partials(output)
    if job.run.keep_last:
        remove_checkpoints(output, after=-1)
    return found


def _begin(job: Job) -> tuple[int, BestModel | None]:
    """Load where the run goes on from, and remove what belongs to one that is not gone on with.

    Returns:
        Updates done, and on worker 0 the best model of that moment.

    Raises:
        BortError: if the folder, or what in it is to be gone on with, is not such a run's; nothing is removed then.
    """
    output, resume = job.output, job.run.resume
    if resume not in ("auto", "never") and Path(resume).resolve().parent != output.resolve():
        raise BortError(
            f"--resume {resume}: not in {output}, and the best model and the metrics beside it are needed too; copy that whole folder and "
            "give the copy as --output_dir, or start from its best/ with --init_from"
        )
    first_step = resume_run(job.engine, output, resume, job.outcome)
    if job.engine.rank > 0:
        return first_step, None
    # First what may refuse the folder, then what removes something from it.
    knows_best = known_best(output, first_step, "score") > 0
    if first_step >= min(job.plan.steps_per_epoch, job.total) and not knows_best:
        raise BortError(
            f"{output / BEST_FOLDER}: the best model of the first {first_step} updates is not kept any more, so the run cannot go on from "
            "there; --resume never begins it anew"
        )
    require_own(output, output / PREDICTIONS_FOLDER)
    # A kill may come at any of these, and what is left must be a run that is complete, one to go on with, or none: so what says that it
    # is complete goes first, then the later checkpoints, and only then the best model that they need.
    (output / RESULT_FILE).unlink(missing_ok=True)
    forget_later_work(output, first_step)
    best = BestModel(output, first_step, "score", higher_is_better=True)
    remove_partials(output / BEST_FOLDER)
    if (output / PREDICTIONS_FOLDER).exists():
        remove_whole(output / PREDICTIONS_FOLDER)
    for name in (MATRIX_FILE, SCORES_FILE):
        (output / name).unlink(missing_ok=True)
    with explained_writing(output, output):
        write_text(output / CONFIG_FILE, json.dumps(job.config.to_dict(), indent=2) + "\n")
    return first_step, best


def _train(job: Job, first_step: int, best: BestModel | None, notes: Sequence[str]) -> tuple[int, float]:
    """Train to the end, keeping the best model and checkpoints; returns updates done and the seconds of the whole run."""
    engine, output, run, settings, steps, total = job.engine, job.output, job.run, job.settings, job.plan.steps_per_epoch, job.total
    schedule = LinearSchedule(settings.lr, total, settings.warmup_ratio, settings.use_scheduler)
    trained = TrainedTask(job.task.name, job.task.labels, settings.max_len, settings.keep_question)
    done, best_step = first_step, engine.agree(best.step if best else 0)

    def stops_early() -> bool:
        # Evaluations since the best, which both the number of the update and the best epoch's tell.
        return best_step > 0 and 0 < settings.early_stop <= done // steps - -(-best_step // steps)

    def evaluate() -> int:
        """Judge the classifier as it is, and return the step of the best one."""
        logits = job.dev_logits(done)
        if best is not None:
            dev = _scores(job.task, job.data, logits)
            own_score = task_score(dev)
            evaluation = {"score": own_score, "epoch": -(-done // steps), "dev": dev}
            journal.record(done, "eval", {"score": own_score} | _flatten(dev))
            if best.is_beaten_by(evaluation):
                card = job.card(job.result(evaluation, done, clock.seconds()))
                best.replace(done, evaluation, TrainedModel(job.config, engine.parameters(), job.tokenizer, card, trained))
        return engine.agree(best.step if best else 0)

    folder, name = output if best else None, f"finetune {job.task.name}"
    # The journal is written all the time, so what the system refuses inside is most likely its.
    with explained_writing(output, output), Journal(folder, total, first_step, name) as journal:
        for note in notes:
            journal.note(note)
        journal.note(_spoken_plan(job, first_step))
        clock = _Clock(_seconds_before(output) if best else 0.0)
        while done < total and not stops_early():
            for micro in range(settings.accumulate):
                mine = job.plan.rows(done, micro, engine.rank)
                if len(mine):
                    seed = dropout_seed(settings.seed, done, micro, engine.rank)
                    engine.accumulate(job.data.train.batch(mine, settings.batch_size, seed))
            learning_rate = schedule(done)
            engine.update(learning_rate)
            done += 1
            journal.advance()
            evaluates = done == total or done % steps == 0
            saves = evaluates or (run.ckpt_interval > 0 and done % run.ckpt_interval == 0)
            if saves or done % run.log_interval == 0:
                sums = engine.drain()
                measured = training_measures(sums, job.task.is_regression)
                require_sound(measured, "loss", output, done)
                journal.record(done, "train", measured | {"learning_rate": learning_rate} | clock.measures(sums["rows"]))
            if evaluates:
                best_step = evaluate()
            if best is not None and saves:
                write_checkpoint(output, done, engine.state(), job.outcome, job.tokenizer, run.keep_last)
                best.keep_from(done)
        return done, clock.seconds()


def _finish(job: Job, done: int, seconds: float) -> FinetuningResult | None:
    """Hand in what the best model says, and write the result."""
    output = job.output
    with explained_writing(output, output):
        files = _hand_in(job, done)
        if job.engine.rank > 0:
            return None
        final = job.result(read_evaluation(output / BEST_FOLDER, "score"), done, seconds, files)
        write_text(output / BEST_FOLDER / CARD_FILE, job.card(final))
        final.write(output)
        if job.run.keep_last:
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


def _scores(task: Task, data: TaskRows, logits: Mapping[str, NDArray[np.float32]]) -> Metrics:
    return {name: score(task, examples, task.decide(examples, logits[name])) for name, examples in data.dev_examples.items()}


def _flatten(metrics: Metrics) -> dict[str, float]:
    """``{"f1": …}`` for one segment, ``{"dev_matched_accuracy": …}`` for several."""
    return {
        (name if len(metrics) == 1 else f"{segment}_{name}"): value for segment, values in metrics.items() for name, value in values.items()
    }


def _hand_in(job: Job, done: int) -> list[str]:
    """With the best model, draw its errors on the dev rows and write all leaderboard files; returns their names within the run's folder."""
    engine, task, settings = job.engine, job.task, job.settings
    _load_best(engine, job.output)
    logits = job.dev_logits(done)
    if engine.rank == 0:
        _draw_errors(task, job.data, logits, job.output)
    answers = []
    for other, segments in job.data.unseen:
        predictions = {}
        for name, examples in segments.items():
            rows = encode_segment(other, name, examples, job.tokenizer, settings.max_len, settings.keep_question, job.cache)
            test_logits = predict_together(engine, rows, settings.dev_batch_size, task.num_classes)
            require_finite({name: test_logits}, job.output, done)
            predictions[name] = other.decide(examples, test_logits)
        answers.append((other, segments, predictions))
    if engine.rank > 0 or not answers:
        return []
    with whole_directory(job.output / PREDICTIONS_FOLDER) as partial:
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


def _spoken_plan(job: Job, first_step: int) -> str:
    """What the run will do, on one line."""
    settings, data, world_size = job.settings, job.data, job.engine.world_size
    size = settings.batch_size * settings.accumulate * world_size
    workers = f"{world_size} worker{'s' if world_size > 1 else ''} × {settings.accumulate} × {settings.batch_size}"
    rows = f"{len(data.train):,} rows, {' and '.join(f'{len(rows):,}' for rows in data.dev.values())} dev rows"
    epochs = f"{job.total:,} updates = {job.total / job.plan.steps_per_epoch:g} epochs"
    going_on = f", going on from step {first_step}" if first_step else ""
    return f"run: {job.task.name}, {rows}, {epochs}, each of {size} rows ({workers}), {job.plan.padding():.1%} padding{going_on}"
