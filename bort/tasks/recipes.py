"""Recipes: how each task is fine-tuned unless the command line says otherwise, as recipes.yaml beside this module gives it.

Notable: a value without a reason is refused, so that no number gets into the file that nobody can argue for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from bort.errors import BortError
from bort.settings import FinetuningSettings, OptimizerSettings

RECIPES_FILE = Path(__file__).with_name("recipes.yaml")


@dataclass(frozen=True)
class Recipe:
    """Settings of a task, as in ``FinetuningSettings`` and ``OptimizerSettings``.

    Attributes:
        epochs: passes over the training rows.
        batch_size: rows of an update.
        max_len: longest input, special tokens included.
        lr: peak learning rate.
        warmup_ratio: share of the updates that warm up.
        weight_decay: of BERTAdam.
        early_stop: evaluations in a row without a better score after which training ends; 0 never ends it.
    """

    epochs: int
    batch_size: int
    max_len: int
    lr: float
    warmup_ratio: float
    weight_decay: float
    early_stop: int

    def __post_init__(self) -> None:
        values = asdict(self)
        OptimizerSettings(weight_decay=values.pop("weight_decay"))
        FinetuningSettings(**values)


def recipe(task_name: str) -> Recipe:
    """The recipe of the task called exactly ``task_name``.

    Raises:
        BortError: if there is none, as for a task without training rows.
    """
    recipes = _own_recipes()
    if task_name not in recipes:
        raise BortError(f"{task_name} has no recipe; tasks that can be trained are {', '.join(recipes)}")
    return recipes[task_name]


@lru_cache(maxsize=1)
def _own_recipes() -> Mapping[str, Recipe]:
    return read_recipes(RECIPES_FILE)


def read_recipes(path: Path) -> dict[str, Recipe]:
    """Recipes by task of a YAML file laid out as recipes.yaml is.

    Raises:
        BortError: if it cannot be read, is no YAML or is laid out otherwise, or a value or its reason is missing, unknown or of the wrong
            kind; names the file and the key.
    """
    try:
        root = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise BortError(f"{path}: cannot read: {error.strerror}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise BortError(f"{path}{where}: not YAML: {getattr(error, 'problem', None) or 'unreadable'}; mend the file") from error
    sections = _mapping(root, f"{path}: the file")
    _require_keys(sections, {"groups", "tasks"}, f"{path}: the file")
    groups = _mapping(sections["groups"], f"{path}: groups")
    recipes = {}
    for name, entry in _mapping(sections["tasks"], f"{path}: tasks").items():
        place = f"{path}: tasks.{name}"
        own = dict(_mapping(entry, place))
        group = own.pop("group", None)
        if not isinstance(group, str) or group not in groups:
            raise BortError(f"{place}.group: {group!r} is none of the groups {', '.join(map(str, groups))}")
        values = _values(groups[group], f"{path}: groups.{group}") | _values(own, place)
        _require_keys(values, {field.name for field in fields(Recipe)}, place)
        try:
            recipes[str(name)] = Recipe(**values)
        except BortError as error:
            raise BortError(f"{place}: {error}") from None
    return recipes


def _values(entry: object, place: str) -> dict[str, Any]:
    """Values by setting, each of its kind and with a reason."""
    # Annotations are texts in this module.
    kinds = {field.name: field.type for field in fields(Recipe)}
    values: dict[str, Any] = {}
    for name, pair in _mapping(entry, place).items():
        if name not in kinds:
            raise BortError(f"{place}.{name}: no such setting; there are {', '.join(kinds)}")
        pair = _mapping(pair, f"{place}.{name}")
        _require_keys(pair, {"value", "reason"}, f"{place}.{name}")
        value, reason = pair["value"], pair["reason"]
        if not isinstance(reason, str) or not reason.strip():
            raise BortError(f"{place}.{name}.reason: a text is needed that says why, got {reason!r}")
        # YAML's true is a whole number to Python.
        if isinstance(value, bool) or not isinstance(value, int if kinds[name] == "int" else int | float):
            kind = "a whole number" if kinds[name] == "int" else "a number, as 1.0e-4"
            raise BortError(f"{place}.{name}.value: {kind} is needed, got {value!r}")
        values[name] = value
    return values


def _mapping(value: object, place: str) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise BortError(f"{place}: a mapping is needed, got {type(value).__name__}")
    return value


def _require_keys(found: Mapping[Any, Any], needed: set[str], place: str) -> None:
    missing, unknown = sorted(needed - set(found)), sorted(map(str, set(found) - needed))
    if missing or unknown:
        problems = [f"{', '.join(keys)} {what}" for keys, what in ((missing, "missing"), (unknown, "unknown")) if keys]
        raise BortError(f"{place}: {' and '.join(problems)}; it holds {', '.join(sorted(needed))}")
