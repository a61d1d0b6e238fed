"""Checkpoints: everything a run needs to resume, in folders that are whole or absent.

``checkpoint_0000100/`` holds ``0000100.params`` (loadable by Gluon), ``0000100.states.safetensors`` (optimiser moments), ``state.json``
(step, seed, settings, versions) and the vocabulary. Nothing in it says which engine wrote it. Data position and randomness need no state of
their own: both are functions of the step and the seed. What is not finite is not written, so a checkpoint is always worth resuming from.
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

# Not part of a run's identity: with the same global batch only dropout's draws differ.
DIVISION = ("batch_size", "accumulate")

_WRITTEN_WHOLE = (
    "checkpoint_", "best", "model", "predictions", "config.json", "data_card.md", "metrics.jsonl", "curves.png", "confusion_matrix.png",
    "scores.png", "result.json", "README.md",
)  # fmt: skip

# Below 1 the scale no longer lifts small gradients; one that still overflows has diverged.
_LOWEST_LOSS_SCALE = 1.0


@dataclass(frozen=True)
class Checkpoint:
    """A run after ``step`` updates.

    Attributes:
        path: its folder.
        step: updates done.
        identity: settings that the run was started with; resuming with other values of these is refused.
    """

    path: Path
    step: int
    identity: Mapping[str, Any]

    def engine_state(self) -> dict[str, np.ndarray]:
        """Parameters and optimiser moments, as :meth:`bort.engine.Engine.load_state` takes them.

        Raises:
            BortError: if a file is missing or damaged.
        """
        name = f"{self.step:07d}"
        return read_parameters(self.path / f"{name}.params") | read_parameters(self.path / f"{name}.states.safetensors")


def write_checkpoint(
    folder: Path, step: int, engine_state: Mapping[str, np.ndarray], identity: Mapping[str, Any], tokenizer: Tokenizer, keep_last: int
) -> Path:
    """Write ``folder/checkpoint_<step>/``, then remove all but the newest ``keep_last`` checkpoints.

    Args:
        identity: settings that a run must have to resume from here, ready for JSON.
        keep_last: at least 1; 0 keeps all.

    Raises:
        BortError: if something in ``engine_state`` is not finite, or the disk is full or the folder cannot be written; checkpoints already
            there stay whole, and the message names the last one.
    """
    path = folder / f"checkpoint_{step:07d}"
    spoilt = next((name for name, values in engine_state.items() if not np.isfinite(values).all()), None)
    if spoilt is not None:
        raise BortError(divergence(folder, step, f"{spoilt} is not finite"))
    state = {"step": step, "settings": dict(identity), "versions": versions()}
    with explained_writing(folder, path), whole_directory(path) as partial:
        write_parameters(partial / f"{step:07d}.params", {k: v for k, v in engine_state.items() if "/" not in k})
        write_parameters(partial / f"{step:07d}.states.safetensors", {k: v for k, v in engine_state.items() if "/" in k})
        tokenizer.save(partial)
        (partial / STATE_FILE).write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
    if keep_last:
        for old in _checkpoint_folders(folder)[:-keep_last]:
            remove_whole(old)
    return path


def versions() -> dict[str, str]:
    """Of what a run's numbers depend on, as far as the loops know it."""
    return {"bort": bort.__version__, "python": platform.python_version(), "numpy": version("numpy")}


@contextmanager
def explained_writing(folder: Path, path: Path) -> Iterator[None]:
    """While ``path`` is written: where the disk is full or the system refuses otherwise, say from where the run in ``folder`` can resume.

    Raises:
        BortError: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        remedy = "fix this, and the same command resumes from there"
        raise BortError(f"{path}: cannot be written: {error.strerror or error}; {_last_checkpoint(folder)}; {remedy}") from None


def divergence(folder: Path, step: int, what: str) -> str:
    """What to tell the user of a run of which ``what`` is true by ``step``, so that training on makes no sense."""
    return f"{what} by step {step}; {_last_checkpoint(folder)}; train again with a lower --lr or a longer --warmup_ratio"


def require_sound(measured: Mapping[str, float], loss: str, folder: Path, step: int) -> None:
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
            raise BortError(divergence(folder, step, f"{spoken} is not finite"))
    if measured.get("loss_scale", math.inf) < _LOWEST_LOSS_SCALE:
        raise BortError(divergence(folder, step, f"gradients overflow even at a loss scale of {measured['loss_scale']:g}"))


def resume_run(engine: Engine[Any], folder: Path, resume: str, identity: Mapping[str, Any]) -> int:
    """Load the checkpoint that ``resume`` names, if any, and return the number of updates done, the same on every worker.

    Args:
        folder: of the run.
        resume: ``auto`` for the newest checkpoint in ``folder`` if there is one, ``never``, or a checkpoint's folder.
        identity: everything that decides the outcome of the run; a checkpoint that was made with other values is refused.

    Raises:
        BortError: if the checkpoint is damaged or was made with other settings, or the workers do not find the same one.
    """
    checkpoint = None
    if resume == "auto":
        checkpoint = latest_checkpoint(folder)
    elif resume != "never":
        checkpoint = read_checkpoint(Path(resume))
    step = checkpoint.step if checkpoint else 0
    first_step = engine.agree(step)
    if step != first_step:
        raise BortError(
            f"{folder}: worker {engine.rank} finds a checkpoint of step {step}, worker 0 of step {first_step}; share the folder"
        )
    if checkpoint is None:
        return 0
    require_same(checkpoint.path, checkpoint.identity, identity)
    engine.load_state(checkpoint.engine_state())
    return step


def require_same(path: Path, found: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """Refuse to resume from what is at ``path`` and was made with the settings ``found``, unless they are those of this run.

    Raises:
        BortError: naming the first setting that differs.
    """
    different = sorted(name for name in identity.keys() | found.keys() if identity.get(name) != found.get(name))
    if different:
        name = different[0]
        raise BortError(
            f"{path}: made with {name} {found.get(name)!r}, this run has {identity.get(name)!r}; "
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
        case {"step": int(step), "settings": dict(identity)} if step >= 0:
            return Checkpoint(path, step, identity)
    raise BortError(f"{path / STATE_FILE}: not the state of a checkpoint; it is damaged, or written by something else")


def latest_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest checkpoint of a run's folder, None if there is none."""
    folders = _checkpoint_folders(folder)
    return read_checkpoint(folders[-1]) if folders else None


def forget_later_work(folder: Path, step: int) -> None:
    """Remove what an abandoned run left beyond ``step`` updates: checkpoints, and what a kill left half-written.

    A run that starts anew in an old folder would otherwise resume, later, from the old run's checkpoints.
    """
    remove_partials(folder)
    remove_checkpoints(folder, step)


def require_own(folder: Path, inner: Path) -> None:
    """Refuse to remove or replace ``inner``, a folder within a run's ``folder``, if no run there can have written it.

    Raises:
        BortError: if ``inner`` exists, and ``folder`` holds no configuration with metrics or a checkpoint beside it.
    """
    is_run = (folder / CONFIG_FILE).is_file() and ((folder / METRICS_FILE).is_file() or bool(_checkpoint_folders(folder)))
    if inner.exists() and not is_run:
        raise BortError(f"{inner}: in the way, and not the work of a run in {folder}; move it away, or give another --output_dir")


def remove_partials(folder: Path) -> None:
    """Remove what a kill left half-written in a run's folder or in one of its models'."""
    for name in _WRITTEN_WHOLE:
        for partial in folder.glob(f".*{name}*.partial"):
            if partial.is_dir():
                shutil.rmtree(partial)
            else:
                partial.unlink()


def remove_checkpoints(folder: Path, after: int) -> None:
    """Remove the checkpoints of more than ``after`` updates."""
    for checkpoint in _checkpoint_folders(folder):
        if _step_of(checkpoint) > after:
            remove_whole(checkpoint)


def remove_whole(folder: Path) -> None:
    """Remove a folder so that a kill leaves all of it or, under a name that nothing reads, its remains."""
    retired = folder.with_name(f".{folder.name.lstrip('.')}.retired.partial")
    if retired.exists():
        # Left by a kill during an earlier removal.
        shutil.rmtree(retired)
    folder.rename(retired)
    shutil.rmtree(retired)


def _last_checkpoint(folder: Path) -> str:
    folders = _checkpoint_folders(folder)
    return f"the last checkpoint is {folders[-1]}" if folders else "there is no checkpoint yet"


def _checkpoint_folders(folder: Path) -> list[Path]:
    """Checkpoints of a run, by step; other names, such as a user's own copy, are not touched."""
    found = [inner for inner in folder.glob("checkpoint_*") if re.fullmatch(r"checkpoint_\d{7,}", inner.name) and inner.is_dir()]
    return sorted(found, key=_step_of)


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("checkpoint_"))
