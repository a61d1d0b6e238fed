"""Checkpoints: everything a run needs to go on, in folders that are whole or absent.

``checkpoint_0000100/`` holds ``0000100.params`` (loadable by Gluon), ``0000100.states.safetensors`` (optimiser moments), ``state.json``
(step, seed, settings, versions) and the vocabulary. Nothing in it says which engine wrote it. Data position and randomness need no state of
their own: both are functions of the step and the seed. What is not finite is not written, so that going on from a checkpoint can help.
"""

from __future__ import annotations

import json
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
from bort.errors import BortError
from bort.files import whole_directory
from bort.parameters import read_parameters, write_parameters
from bort.tokenizer import Tokenizer

STATE_FILE = "state.json"
_WRITTEN_WHOLE = ("checkpoint_", "best", "model", "config.json", "data_card.md", "metrics.jsonl", "curves.png")


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
    for name in _WRITTEN_WHOLE:
        for partial in run.glob(f".*{name}*.partial"):
            if partial.is_dir():
                shutil.rmtree(partial)
            else:
                partial.unlink()
    for folder in _checkpoint_folders(run):
        if _step_of(folder) > step:
            remove_whole(folder)


def remove_whole(folder: Path) -> None:
    """Remove a folder so that a kill leaves all of it or, under a name that nothing reads, its remains."""
    retired = folder.with_name(f".{folder.name.lstrip('.')}.retired.partial")
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
