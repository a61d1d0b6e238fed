"""What a sweep's folder holds: ``sweep.json``, which says what the sweep is, and its runs in ``runs/``, of which those with a result count.

Notable: runs that learnt from other rows, or differ in anything else that the sweep does not vary, are refused, since their scores must
not be averaged.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from bort.errors import BortError
from bort.training.finetuning_result import RESULT_FILE, FinetuningResult, read_result
from bort.training.grid import SEED, Point

SWEEP_FILE, RUNS_FOLDER = "sweep.json", "runs"
_LONGEST_VALUE = 80  # characters of a setting in an error


def read_sweep(output: Path) -> tuple[dict[str, Any], list[Point]]:
    """The options of a sweep's runs, and its points.

    Raises:
        BortError: if ``output/sweep.json`` cannot be read or is not one.
    """
    path = output / SWEEP_FILE
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BortError(f"{path}: {error.strerror}; give the folder of a sweep") from None
    except (ValueError, RecursionError):
        described = None
    match described:
        case {"options": dict(options), "fixed": fixed, "points": [_, *_] as points} if _are_values(fixed) and all(
            _is_point(values) for values in points
        ):
            return options, [Point(values, fixed) for values in points]
    raise BortError(f"{path}: not the description of a sweep; give another --output_dir")


def read_runs(output: Path, varied: Collection[str]) -> dict[str, FinetuningResult]:
    """Results of the complete runs in a sweep's folder, by name and in the order of the names.

    Args:
        varied: settings in which they may differ.

    Raises:
        BortError: if a result is damaged, or made with other rows, another encoder or any other setting that is not varied; names the run
            and the setting.
    """
    results = {path.parent.name: read_result(path.parent) for path in sorted((output / RUNS_FOLDER).glob(f"*/{RESULT_FILE}"))}
    first = next(iter(results), "")
    for name, result in results.items():
        one, other = results[first].settings, result.settings
        free = {*varied, *({"global_batch"} if {"batch_size", "accumulate"} & set(varied) else ())}
        if one.get("training_steps") or other.get("training_steps"):
            # How many epochs these are follows from the size of an update.
            free.add("epochs")
        if difference := first_difference(one, other, free):
            setting, was, now = difference
            raise BortError(
                f"{output / RUNS_FOLDER / name}: made with {setting} {now}, but {first} with {was}, so they cannot be averaged; "
                "remove the one that is out of date, or give another --output_dir"
            )
    return results


def first_difference(one: Mapping[str, Any], other: Mapping[str, Any], free: Collection[str] = ()) -> tuple[str, str, str] | None:
    """Name and both values of the first setting that differs, within a mapping if it is one; None if there is none.

    Args:
        free: settings that may differ.
    """
    for name in sorted(one.keys() | other.keys()):
        was, now = one.get(name), other.get(name)
        if name in free or was == now:
            continue
        inner = first_difference(was, now) if isinstance(was, dict) and isinstance(now, dict) else None
        return (f"{name}.{inner[0]}", *inner[1:]) if inner else (name, repr(was)[:_LONGEST_VALUE], repr(now)[:_LONGEST_VALUE])
    return None


def _is_point(values: Any) -> bool:
    """Whether names and values are such as a grid has; a name becomes part of a folder's."""
    return _are_values(values) and isinstance(values.get(SEED), int)


def _are_values(values: Any) -> bool:
    if not isinstance(values, dict):
        return False
    return all(name.isidentifier() and isinstance(value, bool | int | float | str) for name, value in values.items())
