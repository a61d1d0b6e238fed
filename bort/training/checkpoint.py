"""Checkpoints: everything a run needs to go on, in folders that are whole or absent.

``checkpoint_0000100/`` holds ``0000100.params`` (loadable by Gluon), ``0000100.states.safetensors`` (optimiser moments), ``state.json``
(step, seed, settings, versions) and the vocabulary. Nothing in it says which engine wrote it. Data position and randomness need no state of
their own: both are functions of the step and the seed. What is not finite is not written, so that going on from a checkpoint can help.
"""

from __future__ import annotations

import json
import math
import platform
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import bort
from bort.engine import Engine
from bort.errors import BortError
from bort.files import whole_directory
from bort.model_directory import CONFIG_FILE
from bort.parameters import read_parameters, write_parameters
from bort.tokenizer import Tokenizer
from bort.training.journal import METRICS_FILE

STATE_FILE = "state.json"
_WRITTEN_WHOLE = (
    "checkpoint_", "best", "model", "predictions", "config.json", "data_card.md", "metrics.jsonl", "curves.png", "confusion_matrix.png",
    "scores.png", "result.json", "README.md",
)  # fmt: skip

# A gradient that overflows where the loss is not enlarged at all will not be mended by making it smaller still.
_LOWEST_LOSS_SCALE = 1.0


@dataclass(frozen=True)
class Checkpoint:
    """A run after ``step`` updates.

    Attributes:
        path: its folder.
        step: updates done.
        settings: what the run was started with; resuming with other values of these is refused.
    """

    path: Path
    step: int
    settings: Mapping[str, Any]

    def engine_state(self) -> dict[str, np.ndarray]:
        """Parameters and optimiser moments, as :meth:`bort.engine.Engine.load_state` takes them.

        Raises:
            BortError: if a file is missing or damaged.
        """
        name = f"{self.step:07d}"
        return read_parameters(self.path / f"{name}.params") | read_parameters(self.path / f"{name}.states.safetensors")


def write_checkpoint(
    run: Path, step: int, engine_state: Mapping[str, np.ndarray], settings: Mapping[str, Any], tokenizer: Tokenizer, keep_last: int
) -> Path:
    """Write ``run/checkpoint_<step>/``, then remove all but the newest ``keep_last`` checkpoints.

    Args:
        keep_last: at least 1; 0 keeps all.

    Raises:
        BortError: if something in ``engine_state`` is not finite, or the disk is full or the folder cannot be written; checkpoints already
            there stay whole, and the message names the last one.
    """
    path = run / f"checkpoint_{step:07d}"
    spoilt = next((name for name, values in engine_state.items() if not np.isfinite(values).all()), None)
    if spoilt is not None:
        raise BortError(divergence(run, step, f"{spoilt} is not finite"))
    state = {
        "step": step,
        "settings": dict(settings),
        "versions": versions(),
    }
    with explained_writing(run, path), whole_directory(path) as partial:
        write_parameters(partial / f"{step:07d}.params", {k: v for k, v in engine_state.items() if "/" not in k})
        write_parameters(partial / f"{step:07d}.states.safetensors", {k: v for k, v in engine_state.items() if "/" in k})
        tokenizer.save(partial)
        (partial / STATE_FILE).write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
    if keep_last:
        for old in _checkpoint_folders(run)[:-keep_last]:
            remove_whole(old)
    return path


def versions() -> dict[str, str]:
    """Of what a run's numbers depend on, as far as the loops know it."""
    return {"bort": bort.__version__, "python": platform.python_version(), "numpy": version("numpy")}


@contextmanager
def explained_writing(run: Path, path: Path) -> Iterator[None]:
    """While ``path`` is written: say of a full disk, and of whatever else the system refuses, from where the run can go on.

    Raises:
        BortError: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        remedy = "mend this, and the same command goes on from there"
        raise BortError(f"{path}: cannot be written: {error.strerror or error}; {_last_checkpoint(run)}; {remedy}") from None


def divergence(run: Path, step: int, what: str) -> str:
    """What to tell the user of a run of which ``what`` is true by ``step``, so that going on makes no sense."""
    return f"{what} by step {step}; {_last_checkpoint(run)}; train again with a lower --lr or a longer --warmup_ratio"


def require_sound(measured: Mapping[str, float], loss: str, run: Path, step: int) -> None:
    """Stop a run whose numbers will not recover.

    Args:
        measured: of a drained window; ``gradient_norm``, ``parameter_norm``, the loss, and in half precision ``loss_scale``.
        loss: its name in ``measured``.

    Raises:
        BortError: if one of them is not finite, or the loss scale has fallen too low.
    """
    # An update whose gradient is not finite is skipped, and in float32 nothing will make the next one better.
    quantities = {loss: "the loss", "gradient_norm": "the norm of the gradient", "parameter_norm": "the norm of the parameters"}
    for name, spoken in quantities.items():
        if not math.isfinite(measured[name]):
            raise BortError(divergence(run, step, f"{spoken} is not finite"))
    if measured.get("loss_scale", math.inf) < _LOWEST_LOSS_SCALE:
        raise BortError(divergence(run, step, f"gradients overflow even at a loss scale of {measured['loss_scale']:g}"))


def resume_run(engine: Engine[Any], run: Path, resume: str, outcome: Mapping[str, Any]) -> int:
    """Load the checkpoint that ``resume`` names, if any, and return the number of updates done, the same on every worker.

    Args:
        resume: ``auto`` for the newest checkpoint of ``run`` if there is one, ``never``, or a checkpoint's folder.
        outcome: everything that decides the outcome of the run; a checkpoint that was made with other values is refused.

    Raises:
        BortError: if the checkpoint is damaged or was made with other settings, or the workers do not find the same one.
    """
    checkpoint = None
    if resume == "auto":
        checkpoint = latest_checkpoint(run)
    elif resume != "never":
        checkpoint = read_checkpoint(Path(resume))
    step = checkpoint.step if checkpoint else 0
    first_step = engine.agree(step)
    if step != first_step:
        raise BortError(f"{run}: worker {engine.rank} finds a checkpoint of step {step}, worker 0 of step {first_step}; share the folder")
    if checkpoint is None:
        return 0
    require_same(checkpoint.path, checkpoint.settings, outcome)
    engine.load_state(checkpoint.engine_state())
    return step


def require_same(path: Path, settings: Mapping[str, Any], outcome: Mapping[str, Any]) -> None:
    """Refuse to go on with what is at ``path`` and was made with ``settings``, unless they are those of this run.

    Raises:
        BortError: naming the first setting that differs.
    """
    different = sorted(name for name in outcome.keys() | settings.keys() if outcome.get(name) != settings.get(name))
    if different:
        name = different[0]
        raise BortError(
            f"{path}: made with {name} {settings.get(name)!r}, this run has {outcome.get(name)!r}; "
            "give the same settings, another --output_dir, or --resume never"
        )


def read_checkpoint(path: Path) -> Checkpoint:
    """Describe a checkpoint folder.

    Raises:
        BortError: if it is not one.
    """
    try:
        state = json.loads((path / STATE_FILE).read_text(encoding="utf-8"))
    except OSError as error:
        raise BortError(f"{path / STATE_FILE}: {error.strerror}; give the folder of a checkpoint") from None
    except (ValueError, RecursionError):
        state = None
    match state:
        case {"step": int(step), "settings": dict(settings)} if step >= 0:
            return Checkpoint(path, step, settings)
    raise BortError(f"{path / STATE_FILE}: not the state of a checkpoint; it is damaged, or written by something else")


def latest_checkpoint(run: Path) -> Checkpoint | None:
    """The newest checkpoint of a run folder, None if there is none."""
    folders = _checkpoint_folders(run)
    return read_checkpoint(folders[-1]) if folders else None


def forget_later_work(run: Path, step: int) -> None:
    """Remove what an abandoned run left beyond ``step`` updates: checkpoints, and what a kill left half-written.

    A run that starts anew in an old folder would otherwise be resumed, later, from the old run's checkpoints.
    """
    remove_partials(run)
    remove_checkpoints(run, step)


def require_own(run: Path, folder: Path) -> None:
    """Refuse to remove or replace a folder within ``run`` that no run there can have written.

    Raises:
        BortError: if ``folder`` exists, and ``run`` holds no configuration with metrics or a checkpoint beside it.
    """
    is_run = (run / CONFIG_FILE).is_file() and ((run / METRICS_FILE).is_file() or bool(_checkpoint_folders(run)))
    if folder.exists() and not is_run:
        raise BortError(f"{folder}: in the way, and not the work of a run in {run}; move it away, or give another --output_dir")


def remove_partials(folder: Path) -> None:
    """Remove what a kill left half-written in a run's folder or in one of its models'."""
    for name in _WRITTEN_WHOLE:
        for partial in folder.glob(f".*{name}*.partial"):
            if partial.is_dir():
                shutil.rmtree(partial)
            else:
                partial.unlink()


def remove_checkpoints(run: Path, after: int) -> None:
    """Remove the checkpoints of more than ``after`` updates."""
    for folder in _checkpoint_folders(run):
        if _step_of(folder) > after:
            remove_whole(folder)


def remove_whole(folder: Path) -> None:
    """Remove a folder so that a kill leaves all of it or, under a name that nothing reads, its remains."""
    retired = folder.with_name(f".{folder.name.lstrip('.')}.retired.partial")
    if retired.exists():
        # Of a kill amid an earlier removal.
        shutil.rmtree(retired)
    folder.rename(retired)
    shutil.rmtree(retired)


def _last_checkpoint(run: Path) -> str:
    folders = _checkpoint_folders(run)
    return f"the last checkpoint is {folders[-1]}" if folders else "there is no checkpoint yet"


def _checkpoint_folders(run: Path) -> list[Path]:
    """Checkpoint folders of a run, by step; other names, such as a user's own copy, are not touched."""
    folders = [folder for folder in run.glob("checkpoint_*") if re.fullmatch(r"checkpoint_\d{7,}", folder.name) and folder.is_dir()]
    return sorted(folders, key=_step_of)


def _step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("checkpoint_"))
