"""Language-understanding tasks: reading their files, input text, metrics and leaderboard files.

``get_task("RTE").examples("train")`` reads rows; ``encode_examples`` (bort/tasks/encoding.py) turns them into input ids, ``score``
(bort/tasks/metrics.py) judges predictions, and ``write_predictions`` (bort/tasks/leaderboard.py) writes them as the leaderboard wants them.
A task is one entry in glue.py, superglue.py or race.py.
"""

from __future__ import annotations

from bort.tasks.registry import TASKS, can_label, diagnostic_tasks, get_task
from bort.tasks.task import Example, Segment, Task

__all__ = ["TASKS", "Example", "Segment", "Task", "can_label", "diagnostic_tasks", "get_task"]
