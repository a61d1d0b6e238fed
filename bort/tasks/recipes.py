"""Recipes: how each task is fine-tuned unless the command line says otherwise, from recipes.yaml beside this module.

Notable: every value in that file carries its reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import yaml  # type: ignore[import-untyped]

from bort.errors import BortError
from bort.settings import FinetuningSettings, OptimizerSettings

RECIPES_FILE = Path(__file__).with_name("recipes.yaml")


@dataclass(frozen=True)
class Recipe:
    """Settings of a task, as in ``FinetuningSettings`` and ``OptimizerSettings``.

    Attributes:
        epochs: passes over the training rows.
        batch_size: rows per update.
        max_len: longest input, special tokens included.
        lr: peak learning rate.
        warmup_ratio: share of the updates in which the learning rate rises.
        weight_decay: of BERTAdam.
        early_stop: evaluations in succession without a better score after which training ends; 0 never ends it early.
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
    recipes = _recipes()
    if task_name not in recipes:
        raise BortError(f"{task_name} has no recipe; tasks that can be trained are {', '.join(recipes)}")
    return recipes[task_name]


@lru_cache(maxsize=1)
def _recipes() -> Mapping[str, Recipe]:
    """Recipes by task; tests/tasks/test_recipes.py checks that the file is laid out as it should be."""
    sections = yaml.safe_load(RECIPES_FILE.read_bytes())
    recipes = {}
    for name, entry in sections["tasks"].items():
        settings = {**sections["groups"][entry["group"]], **entry}
        del settings["group"]
        recipes[name] = Recipe(**{setting: pair["value"] for setting, pair in settings.items()})
    return recipes
