"""The fine-tuning loop: train on a task, keep the epoch with the best dev score, predict the test set, on any number of workers.

Notable: an epoch is judged by the task's own score, the mean over its metrics and dev segments; its classifier is on disk before the next
begins, and pictures and leaderboard files are made with what is on disk. A run that is killed at any moment resumes from its newest
checkpoint and ends with the same bits: what an update is made of is a function of its number, whether to stop early depends on that number
and the best epoch's alone, and every checkpoint also closes a journal entry, so resuming splits none.
"""

from __future__ import annotations

import json
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
from bort.files import write_text
from bort.model_directory import CARD_FILE, CONFIG_FILE, TrainedTask
from bort.randomness import dropout_seed
from bort.settings import FinetuningRunSettings, FinetuningSettings
from bort.tasks import Task
from bort.tasks.batches import TrainingPlan
from bort.tasks.metrics import score, task_score
from bort.tokenizer import Tokenizer
from bort.training.answers import MATRIX_FILE, PREDICTIONS_FOLDER, SCORES_FILE, write_answers
from bort.training.best import BEST_FOLDER, BestModel, TrainedModel, known_best, read_evaluation
from bort.training.checkpoint import (
    DIVISION,
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
from bort.training.finetuning_job import Job
from bort.training.finetuning_result import RESULT_FILE, FinetuningResult, Metrics, read_result
from bort.training.journal import Journal, read_metrics
from bort.training.lock import only_process
from bort.training.progress import Clock, peak_memory_mb, plan_line
from bort.training.schedule import LinearSchedule
from bort.training.task_rows import TaskRows, read_rows


def finetune(
    engine: ClassifierEngine,
    config: BortConfig,
    tokenizer: Tokenizer,
    task: Task,
    output: Path,
    settings: FinetuningSettings,
    run_settings: FinetuningRunSettings,
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
        run_settings: those that do not decide the outcome.
        more_settings: further settings that decide the outcome, ready for JSON.
        facts: for the classifier's card, as :func:`bort.training.finetuning_card.finetuning_card` takes them.
        notes: lines to print before training, once nothing has refused the run.
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
    settings = replace(settings, epochs=plan.epochs(total))
    identity = asdict(settings) | dict(more_settings or {}) | {"task": task.name, "model": config.to_dict()}
    identity |= {"global_batch": settings.batch_size * engine.world_size * settings.accumulate}
    identity |= {"vocabulary": tokenizer.vocab.fingerprint, "rows": data.fingerprint()}
    division = {name: identity.pop(name) for name in DIVISION}
    job = Job(engine, config, tokenizer, task, output, settings, run_settings, data, plan, total, identity, division, facts or {}, cache)
    is_first = engine.rank == 0
    with only_process(output, "run") if is_first else nullcontext():
        if run_settings.resume == "auto" and engine.agree(int(is_first and (output / RESULT_FILE).exists())):
            return _complete_already(job) if is_first else None
        first_step, best = _begin(job)
        done, seconds = _train(job, first_step, best, notes)
        return _finish(job, done, seconds)


def _complete_already(job: Job) -> FinetuningResult:
    """The result in the folder, if it was made with these settings and all that it lists is still there; prints what is not."""
    output, found = job.output, read_result(job.output)
    require_same(output / RESULT_FILE, {name: value for name, value in found.settings.items() if name not in DIVISION}, job.identity)
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
        if is_answered and found.test_rows.get(name) == digest:
            continue
        remedy = f"bort predict --task {job.data.task_of(name)} --checkpoint {best} labels them" if has_model else anew
        print(f"the test rows for {name} have {'changed' if is_answered else 'come'} since the run; {remedy}")
    # The run may have been killed between its result and this.
    remove_partials(output)
    if job.run_settings.keep_last:
        remove_checkpoints(output, after=-1)
    return found


def _begin(job: Job) -> tuple[int, BestModel | None]:
    """Load the checkpoint to resume from, if there is one, and remove what belongs to a run that is not resumed.

    Returns:
        Updates done, and on worker 0 the best model of that moment.

    Raises:
        BortError: if the folder, or what in it is to be resumed from, is not such a run's; nothing is removed then.
    """
    output, resume = job.output, job.run_settings.resume
    if resume not in ("auto", "never") and Path(resume).resolve().parent != output.resolve():
        raise BortError(
            f"--resume {resume}: not in {output}, and the best model and the metrics beside it are needed too; copy that whole folder and "
            "give the copy as --output_dir, or start from its best/ with --init_from"
        )
    first_step = resume_run(job.engine, output, resume, job.identity)
    if job.engine.rank > 0:
        return first_step, None
    # First what may refuse the folder, then what removes something from it.
    knows_best = known_best(output, first_step, "score") > 0
    if first_step >= min(job.plan.steps_per_epoch, job.total) and not knows_best:
        raise BortError(
            f"{output / BEST_FOLDER}: the best model of the first {first_step} updates is not kept any more, so the run cannot resume from "
            "there; --resume never begins it anew"
        )
    require_own(output, output / PREDICTIONS_FOLDER)
    # Order matters if we are killed here: first result.json (no longer complete), then later checkpoints, last the best model those
    # checkpoints need.
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
    engine, output, settings, run_settings = job.engine, job.output, job.settings, job.run_settings
    plan, steps, total = job.plan, job.plan.steps_per_epoch, job.total
    schedule = LinearSchedule(settings.lr, total, settings.warmup_ratio, settings.use_scheduler)
    trained = TrainedTask(job.task.name, job.task.labels, settings.max_len, settings.keep_question)
    done, best_step = first_step, engine.agree(best.step if best else 0)

    def stops_early() -> bool:
        # Compares the epochs since the best one, which the two steps alone tell, so a resumed run stops at the same update.
        return best_step > 0 and 0 < settings.early_stop <= done // steps - plan.epochs(best_step)

    def evaluate() -> int:
        """Judge the classifier as it is, and return the step of the best one."""
        logits = job.dev_logits(done)
        if best is not None:
            dev = _scores(job.task, job.data, logits)
            own_score = task_score(job.task, dev)
            evaluation = {"score": own_score, "epoch": plan.epochs(done), "dev": dev}
            journal.record(done, "eval", {"score": own_score} | _flatten(dev))
            if best.is_beaten_by(evaluation):
                card = job.card(job.result(evaluation, done, clock.run()))
                best.replace(done, evaluation, TrainedModel(job.config, engine.parameters(), job.tokenizer, card, trained))
        return engine.agree(best.step if best else 0)

    folder, name = output if best else None, f"finetune {job.task.name}"
    # An OSError in here almost always comes from writing the journal.
    with explained_writing(output, output), Journal(folder, total, first_step, name) as journal:
        for note in notes:
            journal.note(note)
        journal.note(_plan(job, first_step))
        clock = Clock(_seconds_before(output) if best else 0.0)
        while done < total and not stops_early():
            for micro in range(settings.accumulate):
                mine = plan.rows(done, micro, engine.rank)
                if len(mine):
                    seed = dropout_seed(settings.seed, done, micro, engine.rank)
                    engine.accumulate(job.data.train.batch(mine, settings.batch_size, seed))
            learning_rate = schedule(done)
            engine.update(learning_rate)
            done += 1
            journal.advance()
            evaluates = done == total or done % steps == 0
            saves = evaluates or (run_settings.ckpt_interval > 0 and done % run_settings.ckpt_interval == 0)
            logs = saves or done % run_settings.log_interval == 0
            if logs:
                sums = engine.drain()
                measured = training_measures(sums, job.task.is_regression)
                require_sound(measured, "loss", output, done)
                speed = {"rows_per_second": sums["rows"] / clock.window(), "seconds": clock.run(), "memory_mb": peak_memory_mb()}
                journal.record(done, "train", measured | {"learning_rate": learning_rate} | speed)
            if evaluates:
                best_step = evaluate()
            if best is not None and saves:
                write_checkpoint(output, done, engine.state(), job.identity, job.tokenizer, run_settings.keep_last)
                best.keep_from(done)
            if logs:
                clock.restart()
        return done, clock.run()


def _finish(job: Job, done: int, seconds: float) -> FinetuningResult | None:
    """Write what the best model answers, and last the result."""
    output = job.output
    with explained_writing(output, output):
        files = write_answers(job, done)
        if job.engine.rank > 0:
            return None
        final = job.result(read_evaluation(output / BEST_FOLDER, "score"), done, seconds, files)
        write_text(output / BEST_FOLDER / CARD_FILE, job.card(final))
        final.write(output)
        if job.run_settings.keep_last:
            remove_checkpoints(output, after=-1)
    return final


def training_measures(sums: Mapping[str, float], is_regression: bool) -> dict[str, float]:
    """Of a drained window: loss per row, share of rows whose class is right, norms, and the share of padded slots."""
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


def _plan(job: Job, first_step: int) -> str:
    """What the run will do, on one line."""
    settings, data = job.settings, job.data
    rows = f"{len(data.train):,} rows, {' and '.join(f'{len(rows):,}' for rows in data.dev.values())} dev rows"
    what = f"{job.task.name}, {rows}, {job.total:,} updates = {job.total / job.plan.steps_per_epoch:g} epochs"
    padding, world_size = job.plan.padding(), job.engine.world_size
    return plan_line(what, settings.batch_size, settings.accumulate, world_size, "rows", padding, first_step)
