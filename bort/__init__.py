"""Bort: an encoder of four layers, from raw text to a distilled model to the leaderboards.

The names below are imported on first use, so ``import bort`` and ``bort --help`` load no deep-learning framework.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "BortConfig": "bort.config",
    "BortError": "bort.errors",
    "BortModel": "bort.gluon.model",
    "BortClassifier": "bort.gluon.model",
    "ExportedModel": "bort.export.exported_model",
    "get_bort_model": "bort.gluon.model",
    "Tokenizer": "bort.tokenizer",
    "Vocab": "bort.vocabulary",
}

__all__ = ["BortClassifier", "BortConfig", "BortError", "BortModel", "ExportedModel", "Tokenizer", "Vocab", "get_bort_model"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'bort' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
