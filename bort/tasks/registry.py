"""Tasks by name, and which of them one model can label.

Case, hyphens and underscores do not matter in a name. A task is also found by the names of its folders (``superglue_cb``, ``glue_sst``) and
by short forms such as ``SST`` and ``RACE-high``. ``RTE`` is GLUE's; SuperGLUE's is ``SuperGLUE-RTE``. ``RACE`` is both its levels.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from bort.errors import BortError
from bort.tasks.glue import GLUE
from bort.tasks.race import RACE
from bort.tasks.superglue import SUPERGLUE
from bort.tasks.task import Task

TASKS: tuple[Task, ...] = (*GLUE, *SUPERGLUE, *RACE)
"""Every task, with its files in the default place."""

_SHORT_FORMS = {"SST": "SST-2", "STS": "STS-B", "RACE-high": "RACE-H", "RACE-middle": "RACE-M"}

_INTERCHANGEABLE = (frozenset({"RTE", "SuperGLUE-RTE"}), frozenset({"RACE", "RACE-H", "RACE-M"}))
"""Groups of tasks of one kind with the same classes, so that a model of one labels the others."""


def _key(name: str) -> str:
    return "".join(character for character in name.casefold() if character.isalnum())


_BY_KEY = (
    {_key(folder): task for task in TASKS for folder in task.folders}
    | {_key(task.name): task for task in TASKS}
    | {_key(short): task for short, name in _SHORT_FORMS.items() for task in TASKS if task.name == name}
)


def get_task(name: str, data_root: Path | str | None = None) -> Task:
    """The task called ``name``.

    Args:
        name: as in the module's docstring.
        data_root: folder that holds the benchmarks' folders; None for ``$MXNET_HOME/datasets``, else ``~/.mxnet/datasets``.

    Raises:
        BortError: if there is no such task; lists those that there are.
    """
    task = _BY_KEY.get(_key(name))
    if task is None:
        raise BortError(f'no task "{name}"; there are {", ".join(task.name for task in TASKS)}')
    return dataclasses.replace(task, data_root=None if data_root is None else Path(data_root))


def diagnostic_tasks(task: Task) -> list[Task]:
    """The sets without training rows that a model of ``task`` labels too, under the same data root."""
    return [get_task(other.name, task.data_root) for other in TASKS if other.predicted_by == task.name]


def can_label(trained: Task, other: Task) -> bool:
    """Whether a model of ``trained`` can label the rows of ``other``: the same task, an interchangeable one, or a diagnostic set of either.

    RTE is the same task in both benchmarks, and a model of one level of RACE labels the other level too.
    """
    asked = other.predicted_by or other.name
    return trained.name in (asked, other.name) or any({asked, trained.name} <= group for group in _INTERCHANGEABLE)
