"""The pre-training loop: masked language modelling, with or without a teacher, on any number of workers.

Notable: the loop queues work and waits for all of it only where it logs, evaluates or writes a checkpoint; batches are made in the
background meanwhile. What an update is made of does not depend on the number of workers, so two workers see what one worker with twice the
batch sees, and a run can resume on another number of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bort.config import BortConfig
from bort.corpus.batches import PretrainingBatches
from bort.corpus.prefetch import prefetch
from bort.corpus.sequences import SequenceSource
from bort.engine import PretrainingEngine
from bort.files import write_text
from bort.model_directory import CONFIG_FILE
from bort.settings import PretrainingSettings, RunSettings
from bort.tokenizer import Tokenizer
from bort.training.best import BestModel, TrainedModel, known_best
from bort.training.cards import count_parameters, data_card, model_card
from bort.training.checkpoint import (
    DIVISION,
    explained_writing,
    forget_later_work,
    remove_whole,
    require_own,
    require_sound,
    resume_run,
    versions,
    write_checkpoint,
)
from bort.training.journal import Journal
from bort.training.lock import only_process
from bort.training.progress import Clock, peak_memory_mb, plan_line
from bort.training.schedule import LinearSchedule

MODEL_FOLDER, DATA_CARD_FILE = "model", "data_card.md"


def pretrain(
    engine: PretrainingEngine,
    config: BortConfig,
    tokenizer: Tokenizer,
    sequences: SequenceSource,
    held_out: SequenceSource | None,
    output: Path,
    settings: PretrainingSettings,
    run_settings: RunSettings,
    more_settings: Mapping[str, Any] | None = None,
    facts: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
) -> dict[str, float]:
    """Train for ``settings.num_steps`` updates and write ``output/model/``, and ``output/best/`` where there is ``held_out``.

    Args:
        engine: the student, on this worker.
        config: the student's sizes.
        sequences: what it learns from.
        held_out: evaluated every ``run_settings.eval_interval`` updates and at the end; None never evaluates.
        output: run folder, which one process at a time works on.
        run_settings: those that do not decide the outcome.
        more_settings: further settings that decide the outcome; they are stored with a checkpoint and must agree when resuming.
        facts: for the cards of models and data, as :func:`bort.training.cards.model_card` takes them.
        notes: lines to print before training, once nothing has refused the run.

    Returns:
        The last evaluation, empty without ``held_out``.

    Raises:
        BortError: if a checkpoint to resume from is damaged or was made with other settings, the folder holds something else or another
            process is at work there, training diverges, or a checkpoint cannot be written.
    """
    pad_id = tokenizer.vocab.pad_id
    batches = PretrainingBatches(sequences, pad_id, settings, engine.world_size)
    held_out_batches = PretrainingBatches(held_out, pad_id, settings, engine.world_size) if held_out else None
    identity = asdict(settings) | dict(more_settings or {}) | {"model": config.to_dict()}
    identity |= {"global_batch": settings.batch_size * engine.world_size * settings.accumulate}
    identity |= {"vocabulary": tokenizer.vocab.fingerprint, "corpus": sequences.fingerprint}
    # It decides which model is the best.
    identity["held_out"] = held_out.fingerprint if held_out else None
    for name in DIVISION:
        identity.pop(name)
    described = {"sequences": len(sequences)} | dict((facts or {}).get("data", {}))
    job = _Job(engine, config, tokenizer, output, settings, run_settings, batches, held_out_batches, identity, facts or {})
    with only_process(output, "run") if engine.rank == 0 else nullcontext():
        first_step, best = _begin(job, described)
        evaluation = _train(job, first_step, best, notes)
        if held_out_batches is not None and not evaluation:
            # Resumed after its last update, so nothing was left to do but this.
            evaluation = evaluate(engine, held_out_batches)
        if best is not None:
            with explained_writing(output, output / MODEL_FOLDER):
                job.trained_model(settings.num_steps, evaluation).write(output / MODEL_FOLDER)
        return evaluation


@dataclass(frozen=True)
class _Job:
    """What does not change during a run: what :func:`pretrain` was given and what follows from it."""

    engine: PretrainingEngine
    config: BortConfig
    tokenizer: Tokenizer
    output: Path
    settings: PretrainingSettings
    run_settings: RunSettings
    batches: PretrainingBatches
    held_out: PretrainingBatches | None
    identity: Mapping[str, Any]
    facts: Mapping[str, Any]

    def trained_model(self, done: int, evaluation: Mapping[str, float]) -> TrainedModel:
        """The student after ``done`` updates, with its card."""
        parameters = self.engine.parameters()
        known = {"parameters": count_parameters(parameters), "steps": done, "workers": self.engine.world_size, "versions": versions()}
        card = model_card(self.config, self.identity, evaluation, known | dict(self.facts))
        return TrainedModel(self.config, parameters, self.tokenizer, card)


def _begin(job: _Job, described: Mapping[str, Any]) -> tuple[int, BestModel | None]:
    """Load the checkpoint to resume from, if there is one, and remove what belongs to a run that is not resumed.

    Args:
        described: what the training data say of themselves.

    Returns:
        Updates done, and on worker 0 the best model of that moment.
    """
    output = job.output
    first_step = resume_run(job.engine, output, job.run_settings.resume, job.identity)
    if job.engine.rank > 0:
        return first_step, None
    # First what may refuse the folder, then what removes something from it. The best model goes after the checkpoints that need it: a run
    # that is killed in between resumes from one of them.
    known_best(output, first_step, "mlm_loss")
    if first_step == 0:
        require_own(output, output / MODEL_FOLDER)
    forget_later_work(output, first_step)
    best = BestModel(output, first_step, "mlm_loss")
    if first_step == 0 and (output / MODEL_FOLDER).exists():
        remove_whole(output / MODEL_FOLDER)
    with explained_writing(output, output):
        write_text(output / CONFIG_FILE, json.dumps(job.config.to_dict(), indent=2) + "\n")
        write_text(output / DATA_CARD_FILE, data_card(described))
    return first_step, best


def _train(job: _Job, first_step: int, best: BestModel | None, notes: Sequence[str]) -> dict[str, float]:
    """Train to the end, keeping the best model and checkpoints; returns the last evaluation, empty if there was none."""
    engine, output, settings, run_settings = job.engine, job.output, job.settings, job.run_settings
    total, evaluation = settings.num_steps, dict[str, float]()
    schedule = LinearSchedule(settings.lr, total, settings.warmup_ratio)
    updates = prefetch(lambda step: job.batches.update(step, engine.rank), range(first_step, total))
    folder = output if best else None
    # An OSError in here almost always comes from writing the journal.
    with explained_writing(output, output), Journal(folder, total, first_step, "pretrain") as journal, closing(updates):
        for note in notes:
            journal.note(note)
        journal.note(_plan(job, first_step))
        clock, waited = Clock(), updates.waited_seconds
        for step, micro_batches in enumerate(updates, first_step):
            for batch in micro_batches:
                engine.accumulate(batch)
            learning_rate = schedule(step)
            engine.update(learning_rate)
            journal.advance()
            done = step + 1
            is_last = done == total
            evaluates = is_last or (run_settings.eval_interval > 0 and done % run_settings.eval_interval == 0)
            logs = evaluates or done % run_settings.log_interval == 0
            if logs:
                sums = engine.drain()
                measured = training_measures(sums)
                require_sound(measured, "mlm_loss", output, done)
                seconds = clock.window()
                speed = {
                    "tokens_per_second": sums["tokens"] / seconds,
                    # Share of the time that the loop waited for batches; the device, which works on what is queued, waited less.
                    "waiting": (updates.waited_seconds - waited) / seconds,
                    "memory_mb": peak_memory_mb(),
                }
                journal.record(done, "train", measured | {"learning_rate": learning_rate} | speed)
            if job.held_out is not None and evaluates:
                evaluation = evaluate(engine, job.held_out)
                journal.record(done, "eval", evaluation)
                if best is not None and best.is_beaten_by(evaluation):
                    best.replace(done, evaluation, job.trained_model(done, evaluation))
            if best is not None and run_settings.ckpt_interval and (is_last or done % run_settings.ckpt_interval == 0):
                write_checkpoint(output, done, engine.state(), job.identity, job.tokenizer, run_settings.keep_last)
                best.keep_from(done)
            if logs:
                clock.restart()
                waited = updates.waited_seconds
    return evaluation


def evaluate(engine: PretrainingEngine, batches: PretrainingBatches) -> dict[str, float]:
    """Masked-language-model loss (nats per masked token) and accuracy on a whole corpus, with the masks of epoch 0 of the run's seed.

    The masks depend on the seed alone, so two runs with one seed are compared on the same questions.
    """
    for batch in batches.evaluation(engine.rank):
        engine.evaluate(batch)
    sums = engine.drain()
    masked = max(sums["masked_tokens"], 1.0)
    return {"mlm_loss": sums["mlm_loss"] / masked, "mlm_accuracy": sums["mlm_correct"] / masked}


def training_measures(sums: Mapping[str, float]) -> dict[str, float]:
    """Of a drained window: losses and entropies in nats per masked token, shares of masked tokens, norms, and the share of padded slots."""
    masked = max(sums["masked_tokens"], 1.0)
    measures = {
        "mlm_loss": sums["mlm_loss"] / masked,
        "mlm_accuracy": sums["mlm_correct"] / masked,
        "student_entropy": sums["student_entropy"] / masked,
        "gradient_norm": sums["gradient_norm"] / max(sums["updates"], 1.0),
        "parameter_norm": sums["parameter_norm"],
        "padding": 1.0 - sums["tokens"] / max(sums["slots"], 1.0),
    }
    # A teacher's entropy is never exactly zero, so a zero sum means there is no teacher.
    if sums["teacher_entropy"]:
        measures |= {
            "kd_loss": sums["kd_loss"] / masked,
            "teacher_entropy": sums["teacher_entropy"] / masked,
            "agreement": sums["agreement"] / masked,
            "teacher_accuracy": sums["teacher_correct"] / masked,
        }
    # Mixed precision has a loss scale, and skips an update whose gradient overflows.
    return measures | {name: sums[name] for name in ("loss_scale", "skipped_updates") if name in sums}


def _plan(job: _Job, first_step: int) -> str:
    """What the run will do, on one line."""
    settings, batches = job.settings, job.batches
    unit = "tokens on average" if settings.use_avg_len else "sequences"
    what = f"{settings.num_steps:,} updates = {settings.num_steps / batches.steps_per_epoch:.1f} epochs"
    padding, world_size = batches.padding_waste(), job.engine.world_size
    return plan_line(what, settings.batch_size, settings.accumulate, world_size, unit, padding, first_step)
