"""The pre-training loop: masked language modelling, with or without a teacher, on any number of workers.

Notable: the loop queues work and waits for the device only where it logs, evaluates or writes a checkpoint. Batch *s* of the run is made of
positions ``s · global batch …`` whatever the number of workers, so two workers see what one worker with twice the batch sees.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bort.config import BortConfig
from bort.corpus.batches import PretrainingBatches
from bort.corpus.masking import Masker
from bort.corpus.shards import Corpus
from bort.engine import PretrainingEngine
from bort.errors import BortError
from bort.model_directory import write_model_directory
from bort.randomness import dropout_seed
from bort.settings import PretrainingSettings, RunSettings
from bort.tokenizer import Tokenizer
from bort.training.checkpoint import forget_later_work, latest_checkpoint, read_checkpoint, write_checkpoint
from bort.training.journal import Journal
from bort.training.schedule import LinearSchedule

MODEL_FOLDER = "model"


def pretrain(
    engine: PretrainingEngine,
    config: BortConfig,
    tokenizer: Tokenizer,
    corpus: Corpus,
    held_out: Corpus | None,
    output: Path,
    settings: PretrainingSettings,
    run: RunSettings,
    more_settings: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """Train for ``settings.num_steps`` updates and write ``output/model/``.

    Args:
        engine: the student, on this worker.
        config: the student's sizes.
        held_out: evaluated every ``run.eval_interval`` updates and at the end; None never evaluates.
        output: run folder.
        more_settings: further settings that decide the outcome; they are stored with a checkpoint and must agree when resuming.

    Returns:
        The last evaluation, empty without ``held_out``.

    Raises:
        BortError: if a checkpoint to resume from is damaged or was made with other settings.
    """
    schedule = LinearSchedule(settings.lr, settings.num_steps, settings.warmup_ratio)
    masker = Masker(tokenizer.vocab, settings.masked_lm_prob, settings.max_predictions_per_seq, settings.seed)
    batches = PretrainingBatches(corpus, tokenizer.vocab, masker, settings.seed)
    global_batch = settings.batch_size * engine.world_size * settings.accumulate
    # The number of workers is free as long as the global batch is the same; dropout alone then differs.
    outcome = asdict(settings) | dict(more_settings or {}) | {"global_batch": global_batch, "model": config.to_dict()}
    outcome |= {"vocabulary": tokenizer.vocab.fingerprint, "corpus": corpus.fingerprint}
    for name in ("batch_size", "accumulate"):
        outcome.pop(name)
    first_step = _resume(engine, output, run.resume, outcome)
    is_first = engine.rank == 0
    if is_first:
        forget_later_work(output, first_step)
    evaluation: dict[str, float] = {}

    with Journal(output if is_first else None, settings.num_steps, first_step, "pretrain") as journal:
        clock = time.perf_counter()
        tokens = 0
        for step in range(first_step, settings.num_steps):
            for micro in range(settings.accumulate):
                first = step * global_batch + (micro * engine.world_size + engine.rank) * settings.batch_size
                seed = dropout_seed(settings.seed, step, micro, engine.rank)
                batch = batches.at(range(first, first + settings.batch_size), seed)
                engine.accumulate(batch)
                tokens += int(batch.valid_length.sum())
            learning_rate = schedule(step)
            engine.update(learning_rate)
            journal.advance()
            done = step + 1
            is_last = done == settings.num_steps
            evaluates = is_last or (run.eval_interval > 0 and done % run.eval_interval == 0)
            if evaluates or done % run.log_interval == 0:
                measured = training_measures(engine.drain()) | {"learning_rate": learning_rate}
                if not math.isfinite(measured["mlm_loss"]):
                    raise BortError(_divergence(output, done))
                seconds = time.perf_counter() - clock
                journal.record(done, "train", measured | {"tokens_per_second": tokens * engine.world_size / seconds})
                clock, tokens = time.perf_counter(), 0
            if held_out is not None and evaluates:
                evaluation = evaluate(engine, held_out, tokenizer, settings)
                journal.record(done, "eval", evaluation)
                clock, tokens = time.perf_counter(), 0
            if is_first and run.ckpt_interval and (is_last or done % run.ckpt_interval == 0):
                write_checkpoint(output, done, engine.state(), outcome, tokenizer, run.keep_last)
        if held_out is not None and not evaluation:
            # Resumed after its last update, so nothing was left to do but this.
            evaluation = evaluate(engine, held_out, tokenizer, settings)
        if is_first:
            write_model_directory(output / MODEL_FOLDER, config, engine.parameters(), tokenizer)
    return evaluation


def evaluate(engine: PretrainingEngine, corpus: Corpus, tokenizer: Tokenizer, settings: PretrainingSettings) -> dict[str, float]:
    """Masked-language-model loss (nats a masked token) and accuracy on a whole corpus, with the masks of epoch 0 of the run's seed.

    The masks depend on the seed alone, so two runs with one seed are compared on the same questions.
    """
    masker = Masker(tokenizer.vocab, settings.masked_lm_prob, settings.max_predictions_per_seq, settings.seed)
    batches = PretrainingBatches(corpus, tokenizer.vocab, masker, settings.seed)
    for batch in batches.evaluation(settings.batch_size, engine.rank, engine.world_size):
        engine.evaluate(batch)
    sums = engine.drain()
    masked = max(sums["masked_tokens"], 1.0)
    return {"mlm_loss": sums["mlm_loss"] / masked, "mlm_accuracy": sums["mlm_correct"] / masked}


def training_measures(sums: Mapping[str, float]) -> dict[str, float]:
    """Means of a drained window: losses and entropies in nats a masked token, shares of masked tokens, mean gradient norm."""
    masked = max(sums["masked_tokens"], 1.0)
    measures = {
        "mlm_loss": sums["mlm_loss"] / masked,
        "mlm_accuracy": sums["mlm_correct"] / masked,
        "student_entropy": sums["student_entropy"] / masked,
        "gradient_norm": sums["gradient_norm"] / max(sums["updates"], 1.0),
    }
    # A teacher's entropy is never exactly zero, so a zero sum means there is no teacher.
    if sums["teacher_entropy"]:
        measures |= {
            "kd_loss": sums["kd_loss"] / masked,
            "teacher_entropy": sums["teacher_entropy"] / masked,
            "agreement": sums["agreement"] / masked,
            "teacher_accuracy": sums["teacher_correct"] / masked,
        }
    return measures


def _resume(engine: PretrainingEngine, output: Path, resume: str, outcome: Mapping[str, Any]) -> int:
    """Load the checkpoint that ``resume`` names, if any, and return the number of updates done, the same on every worker."""
    checkpoint = None
    if resume == "auto":
        checkpoint = latest_checkpoint(output)
    elif resume != "never":
        checkpoint = read_checkpoint(Path(resume))
    step = checkpoint.step if checkpoint else 0
    first_step = engine.agree(step)
    if step != first_step:
        raise BortError(
            f"{output}: worker {engine.rank} finds a checkpoint of step {step}, worker 0 of step {first_step}; share the folder"
        )
    if checkpoint is None:
        return 0
    different = sorted(name for name in outcome.keys() | checkpoint.settings.keys() if outcome.get(name) != checkpoint.settings.get(name))
    if different:
        name = different[0]
        raise BortError(
            f"{checkpoint.path}: made with {name} {checkpoint.settings.get(name)!r}, this run has {outcome.get(name)!r}; "
            "give the same settings, another --output_dir, or --resume never"
        )
    engine.load_state(checkpoint.engine_state())
    return step


def _divergence(output: Path, step: int) -> str:
    checkpoint = latest_checkpoint(output)
    whole = f"the last checkpoint is {checkpoint.path}" if checkpoint else "there is no checkpoint yet"
    return f"the loss is not finite by step {step}; {whole}; train again with a lower --lr or a longer --warmup_ratio"
