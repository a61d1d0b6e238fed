"""Recipes: one for each task that can be trained, each value with its reason, and a file that is checked."""

from __future__ import annotations

import copy
import dataclasses
import warnings

import numpy as np
import pytest
import yaml

from bort import BortError
from bort.tasks import get_task
from bort.tasks.encoding import encode_examples
from bort.tasks.recipes import RECIPES_FILE, Recipe, read_recipes, recipe
from bort.tokenizer import Tokenizer

TRAINABLE = (
    "CoLA", "SST-2", "MRPC", "STS-B", "QQP", "MNLI", "QNLI", "RTE", "WNLI", "BoolQ", "CB", "COPA", "MultiRC", "ReCoRD", "SuperGLUE-RTE",
    "WiC", "WSC", "RACE-H", "RACE-M", "RACE",
)  # fmt: skip
GRID = {"lr": {1e-4, 1e-5, 9e-6}, "weight_decay": {0, 10, 100, 350}, "warmup_ratio": {0.35, 0.4, 0.45, 0.5}, "batch_size": {8, 16}}


def test_every_task_with_training_rows_has_a_recipe_and_no_other():
    assert set(read_recipes(RECIPES_FILE)) == set(TRAINABLE)
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


def edited(tmp_path, edit):
    """The project's recipes after ``edit``, in a file."""
    root = copy.deepcopy(yaml.safe_load(RECIPES_FILE.read_text(encoding="utf-8")))
    edit(root)
    file = tmp_path / "recipes.yaml"
    file.write_text(yaml.safe_dump(root), encoding="utf-8")
    return file


def test_a_task_takes_the_values_of_its_group_and_its_own_in_their_place(tmp_path):
    def edit(root):
        root["groups"]["small"]["lr"]["value"] = 0.5
        root["tasks"]["RTE"]["epochs"] = {"value": 7, "reason": "so"}

    before, after = read_recipes(RECIPES_FILE), read_recipes(edited(tmp_path, edit))
    assert after["RTE"] == dataclasses.replace(before["RTE"], lr=0.5, epochs=7)
    assert after["MRPC"] == dataclasses.replace(before["MRPC"], lr=0.5)
    assert after["CB"] == before["CB"]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda root: root.update(more=1), "the file: more unknown; it holds groups, tasks"),
        (lambda root: root.pop("groups"), "the file: groups missing"),
        (lambda root: root.update(tasks=[1]), "tasks: a mapping is needed, got list"),
        (lambda root: root["tasks"].update(RTE=None), "tasks.RTE: a mapping is needed, got NoneType"),
        (lambda root: root["tasks"]["RTE"].update(group="vast"), "tasks.RTE.group: 'vast' is none of the groups huge, large, small, tiny"),
        (lambda root: root["tasks"]["RTE"].pop("group"), "tasks.RTE.group: None is none"),
        (lambda root: root["tasks"]["RTE"].update(group=["small"]), "tasks.RTE.group: ['small'] is none"),
        (lambda root: root["tasks"]["RTE"].pop("max_len"), "tasks.RTE: max_len missing"),
        (lambda root: root["tasks"]["RTE"].update(epoch={}), "tasks.RTE.epoch: no such setting"),
        (lambda root: root["tasks"]["RTE"]["max_len"].pop("reason"), "tasks.RTE.max_len: reason missing"),
        (lambda root: root["tasks"]["RTE"]["max_len"].update(reason=" "), "tasks.RTE.max_len.reason: a text is needed"),
        (lambda root: root["tasks"]["RTE"]["max_len"].update(value="256"), "tasks.RTE.max_len.value: a whole number is needed, got '256'"),
        (lambda root: root["tasks"]["RTE"]["max_len"].update(value=256.0), "tasks.RTE.max_len.value: a whole number is needed, got 256.0"),
        (lambda root: root["tasks"]["RTE"]["max_len"].update(value=True), "tasks.RTE.max_len.value: a whole number is needed, got True"),
        (lambda root: root["tasks"]["RTE"]["max_len"].update(value=2), "tasks.RTE: max_len must be at least 5, got 2"),
        (
            lambda root: root["groups"]["small"]["lr"].update(value="1e-4"),
            "groups.small.lr.value: a number, as 1.0e-4 is needed, got '1e-4'",
        ),
        (lambda root: root["groups"]["small"]["lr"].update(value=-1.0), "lr must be positive, got -1.0"),
        (lambda root: root["groups"]["small"]["weight_decay"].update(value=float("nan")), "weight_decay must be at least 0, got nan"),
        (lambda root: root["groups"]["small"].update(lr=1e-4), "groups.small.lr: a mapping is needed, got float"),
    ],
)
def test_a_file_that_is_laid_out_otherwise_is_refused_with_its_name_and_the_key(tmp_path, edit, message):
    file = edited(tmp_path, edit)
    with pytest.raises(BortError) as caught:
        read_recipes(file)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{file}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["groups: [", "a: b: c", "!!python/object/apply:os.getcwd []", "\x00", ""])
def test_what_is_no_plain_yaml_is_refused(tmp_path, text):
    file = tmp_path / "recipes.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(BortError, match=r"recipes\.yaml") as caught:
        read_recipes(file)
    assert "\n" not in str(caught.value)
    with pytest.raises(BortError, match="cannot read: No such file"):
        read_recipes(tmp_path / "absent.yaml")


def test_a_recipe_that_cannot_be_is_refused():
    with pytest.raises(BortError, match="warmup_ratio must lie in"):
        Recipe(epochs=1, batch_size=8, max_len=64, lr=1e-4, warmup_ratio=1.5, weight_decay=0.0, early_stop=0)
