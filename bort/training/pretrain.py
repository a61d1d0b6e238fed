"""The pre-training loop: masked language modelling, with or without a teacher, on any number of workers.

Notable: the loop queues work and waits for all of it only where it logs, evaluates or writes a checkpoint; batches are made in the
background meanwhile. What an update is made of does not depend on the number of workers, so two workers see what one worker with twice the
batch sees, and a run goes on with another number of them.
"""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bort.config import BortConfig
from bort.corpus.batches import PretrainingBatches
from bort.corpus.prefetch import prefetch
from bort.corpus.sequences import SequenceSource
from bort.engine import PretrainingBatch, PretrainingEngine
from bort.files import write_text
from bort.model_directory import CONFIG_FILE
from bort.settings import PretrainingSettings, RunSettings
from bort.tokenizer import Tokenizer
from bort.training.best import BestModel, TrainedModel, known_best
from bort.training.cards import count_parameters, data_card, model_card
from bort.training.checkpoint import (
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
    run: RunSettings,
    more_settings: Mapping[str, Any] | None = None,
    facts: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
) -> dict[str, float]:
    """Train for ``settings.num_steps`` updates and write ``output/model/``, and ``output/best/`` where there is ``held_out``.

    Args:
        engine: the student, on this worker.
        config: the student's sizes.
        sequences: what it learns from.
        held_out: evaluated every ``run.eval_interval`` updates and at the end; None never evaluates.
        output: run folder, which one process at a time works on.
        more_settings: further settings that decide the outcome; they are stored with a checkpoint and must agree when resuming.
        facts: for the cards of models and data, as :func:`bort.training.cards.model_card` takes them.
        notes: lines to print once nothing stands against the run.

    Returns:
        The last evaluation, empty without ``held_out``.

    Raises:
        BortError: if a checkpoint to resume from is damaged or was made with other settings, the folder holds something else or another
            process is at work there, training diverges, or a checkpoint cannot be written.
    """
    schedule = LinearSchedule(settings.lr, settings.num_steps, settings.warmup_ratio)
    pad_id = tokenizer.vocab.pad_id
    batches = PretrainingBatches(sequences, pad_id, settings, engine.world_size)
    held_out_batches = PretrainingBatches(held_out, pad_id, settings, engine.world_size) if held_out else None
    # The number of workers is free as long as the global batch is the same; dropout alone then differs.
    global_batch = settings.batch_size * engine.world_size * settings.accumulate
    outcome = asdict(settings) | dict(more_settings or {}) | {"global_batch": global_batch, "model": config.to_dict()}
    outcome |= {"vocabulary": tokenizer.vocab.fingerprint, "corpus": sequences.fingerprint}
    # It decides which model is the best.
    outcome["held_out"] = held_out.fingerprint if held_out else None
    for name in ("batch_size", "accumulate"):
        outcome.pop(name)
    is_first = engine.rank == 0
    with only_process(output, "run") if is_first else nullcontext():
        first_step = resume_run(engine, output, run.resume, outcome)
        if is_first:
            # First what may refuse the folder, then what removes something from it. The best model goes after the checkpoints that need it:
            # a run that is killed in between goes on from one of them.
            known_best(output, first_step, "mlm_loss")
            if first_step == 0:
                require_own(output, output / MODEL_FOLDER)
            forget_later_work(output, first_step)
            best = BestModel(output, first_step, "mlm_loss")
            if first_step == 0 and (output / MODEL_FOLDER).exists():
                remove_whole(output / MODEL_FOLDER)
            with explained_writing(output, output):
                write_text(output / CONFIG_FILE, json.dumps(config.to_dict(), indent=2) + "\n")
                write_text(output / DATA_CARD_FILE, data_card({"sequences": len(sequences)} | dict((facts or {}).get("data", {}))))
        evaluation: dict[str, float] = {}

        def trained_model(done: int) -> TrainedModel:
            parameters = engine.parameters()
            known = {"parameters": count_parameters(parameters), "steps": done, "workers": engine.world_size, "versions": versions()}
            card = model_card(config, outcome, evaluation, known | dict(facts or {}))
            return TrainedModel(config, parameters, tokenizer, card)

        updates = prefetch(lambda step: batches.update(step, engine.rank), range(first_step, settings.num_steps))
        journal_folder = output if is_first else None
        # The journal is written all the time, so what the system refuses inside is most likely its.
        with (
            explained_writing(output, output),
            Journal(journal_folder, settings.num_steps, first_step, "pretrain") as journal,
            closing(updates),
        ):
            for note in notes:
                journal.note(note)
            journal.note(_plan(settings, engine.world_size, batches, first_step))
            window = _Window(updates)
            for step, micro_batches in enumerate(updates, first_step):
                for batch in micro_batches:
                    engine.accumulate(batch)
                learning_rate = schedule(step)
                engine.update(learning_rate)
                journal.advance()
                done = step + 1
                is_last = done == settings.num_steps
                evaluates = is_last or (run.eval_interval > 0 and done % run.eval_interval == 0)
                if evaluates or done % run.log_interval == 0:
                    sums = engine.drain()
                    measured = training_measures(sums)
                    require_sound(measured, "mlm_loss", output, done)
                    journal.record(done, "train", measured | {"learning_rate": learning_rate} | window.measures(sums["tokens"]))
                if held_out_batches is not None and evaluates:
                    evaluation = evaluate(engine, held_out_batches)
                    journal.record(done, "eval", evaluation)
                    if is_first and best.is_beaten_by(evaluation):
                        best.replace(done, evaluation, trained_model(done))
                if is_first and run.ckpt_interval and (is_last or done % run.ckpt_interval == 0):
                    write_checkpoint(output, done, engine.state(), outcome, tokenizer, run.keep_last)
                    best.keep_from(done)
                if evaluates or done % run.log_interval == 0:
                    window = _Window(updates)
            if held_out_batches is not None and not evaluation:
                # Resumed after its last update, so nothing was left to do but this.
                evaluation = evaluate(engine, held_out_batches)
            if is_first:
                with explained_writing(output, output / MODEL_FOLDER):
                    trained_model(settings.num_steps).write(output / MODEL_FOLDER)
        return evaluation


def evaluate(engine: PretrainingEngine, batches: PretrainingBatches) -> dict[str, float]:
    """Masked-language-model loss (nats a masked token) and accuracy on a whole corpus, with the masks of epoch 0 of the run's seed.

    The masks depend on the seed alone, so two runs with one seed are compared on the same questions.
    """
    for batch in batches.evaluation(engine.rank):
        engine.evaluate(batch)
    sums = engine.drain()
    masked = max(sums["masked_tokens"], 1.0)
    return {"mlm_loss": sums["mlm_loss"] / masked, "mlm_accuracy": sums["mlm_correct"] / masked}


def training_measures(sums: Mapping[str, float]) -> dict[str, float]:
    """Of a drained window: losses and entropies in nats a masked token, shares of masked tokens, norms, and the share of padded slots."""
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


class _Window:
    """What the clock and the system say of the time since it was made, between two entries of the journal."""

    def __init__(self, updates: prefetch[list[PretrainingBatch]]) -> None:
        self._updates = updates
        self._start, self._waited = time.perf_counter(), updates.waited_seconds

    def measures(self, tokens: float) -> dict[str, float]:
        """Tokens a second; share of the time the loop waited for batches, at least that of the device; peak resident MB of this process.

        Args:
            tokens: seen by all workers, without padding.
        """
        seconds = time.perf_counter() - self._start
        return {
            "tokens_per_second": tokens / seconds,
            "waiting": (self._updates.waited_seconds - self._waited) / seconds,
            "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }


def _plan(settings: PretrainingSettings, world_size: int, batches: PretrainingBatches, first_step: int) -> str:
    """What the run will do, on one line."""
    size = settings.batch_size * settings.accumulate * world_size
    of_what = "tokens on average" if settings.use_avg_len else "sequences"
    workers = f"{world_size} worker{'s' if world_size > 1 else ''} × {settings.accumulate} × {settings.batch_size}"
    going_on = f", going on from step {first_step}" if first_step else ""
    epochs = f"{settings.num_steps / batches.steps_per_epoch:.1f} epochs"
    padding = f"{batches.padding_waste():.1%} padding"
    return f"run: {settings.num_steps} updates = {epochs}, each of {size} {of_what} ({workers}), {padding}{going_on}"
