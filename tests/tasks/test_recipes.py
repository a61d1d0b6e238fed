"""Recipes: one for each task that can be trained, and each value with its reason."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pytest
import yaml

from bort import BortError
from bort.tasks import get_task
from bort.tasks.encoding import encode_examples
from bort.tasks.recipes import RECIPES_FILE, Recipe, recipe
from bort.tokenizer import Tokenizer

TRAINABLE = (
    "CoLA", "SST-2", "MRPC", "STS-B", "QQP", "MNLI", "QNLI", "RTE", "WNLI", "BoolQ", "CB", "COPA", "MultiRC", "ReCoRD", "SuperGLUE-RTE",
    "WiC", "WSC", "RACE-H", "RACE-M", "RACE",
)  # fmt: skip
GRID = {"lr": {1e-4, 1e-5, 9e-6}, "weight_decay": {0, 10, 100, 350}, "warmup_ratio": {0.35, 0.4, 0.45, 0.5}, "batch_size": {8, 16}}


def test_every_task_with_training_rows_has_a_recipe_and_no_other():
    assert set(yaml.safe_load(RECIPES_FILE.read_text(encoding="utf-8"))["tasks"]) == set(TRAINABLE)
    with pytest.raises(BortError, match=r"AX-b has no recipe; tasks that can be trained are CoLA, "):
        recipe("AX-b")


@pytest.mark.parametrize("name", TRAINABLE)
def test_a_recipe_is_a_point_of_the_published_grid_that_can_leave_the_majority_class(name):
    own = recipe(name)
    for setting, values in GRID.items():
        assert getattr(own, setting) in values
    assert own.epochs >= 5
    # Patience that ends within the warm-up would stop a run before its learning rate has been reached.
    assert own.early_stop == 0 or own.warmup_ratio * own.epochs < own.early_stop < own.epochs
    assert own.max_len % 16 == 0
    assert own.max_len <= 512


def test_small_tasks_train_as_long_as_the_author_advises():
    for name in ("CoLA", "MRPC", "STS-B", "RTE", "WNLI", "CB", "COPA", "SuperGLUE-RTE", "WiC", "WSC"):
        assert 50 <= recipe(name).epochs <= 100


@pytest.mark.parametrize("name", ["CoLA", "SST-2", "MRPC", "STS-B", "QQP", "RTE", "WNLI", "CB", "SuperGLUE-RTE", "WiC"])
def test_hardly_a_training_row_is_cut(name, shared):
    tokenizer = Tokenizer.from_directory(shared / "data/vocab")
    with warnings.catch_warnings():
        # Some of the files are samples.
        warnings.simplefilter("ignore")
        examples = get_task(name, shared / "data").examples("train")
    lengths = np.array([len(ids) for ids in encode_examples(examples, tokenizer, 10_000)])
    assert np.mean(lengths > recipe(name).max_len) < 0.001


def test_every_value_is_of_its_type_and_has_a_reason():
    sections = yaml.safe_load(RECIPES_FILE.read_text(encoding="utf-8"))
    types = {field.name: {"int": int, "float": float}[field.type] for field in dataclasses.fields(Recipe)}
    assert set(sections) == {"groups", "tasks"}
    assert {entry["group"] for entry in sections["tasks"].values()} == set(sections["groups"])
    for entry in (*sections["groups"].values(), *sections["tasks"].values()):
        for name, pair in entry.items():
            if name != "group":
                assert set(pair) == {"value", "reason"}
                assert type(pair["value"]) is types[name]
                assert len(pair["reason"].split()) > 2


def test_a_task_takes_the_values_of_its_group_and_its_own_in_their_place():
    assert (recipe("BoolQ").epochs, recipe("BoolQ").early_stop) == (20, 10)
    group = dataclasses.replace(recipe("RTE"), max_len=512)
    assert dataclasses.replace(recipe("BoolQ"), epochs=group.epochs, early_stop=group.early_stop) == group
    assert recipe("CB") == dataclasses.replace(recipe("COPA"), max_len=256)


def test_a_recipe_that_cannot_be_is_refused():
    with pytest.raises(BortError, match="warmup_ratio must lie in"):
        Recipe(epochs=1, batch_size=8, max_len=64, lr=1e-4, warmup_ratio=1.5, weight_decay=0.0, early_stop=0)
