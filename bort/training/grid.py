"""Grids of settings: a YAML file that gives options lists of values, and the points that are their product.

Notable: the file is read as YAML's nodes, of which nothing is constructed: ``1e-4``, a text to YAML 1.1, is the number that the option
takes, and every error names the line. A point's name comes from its values, however they were written, so the same point finds its folder
again; a setting that has one value in the whole sweep is left out, and a name never gets too long for a folder.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args, get_type_hints
from urllib.parse import quote

import yaml  # type: ignore[import-untyped]

from bort.errors import BortError
from bort.settings import FinetuningSettings, OptimizerSettings

Value = bool | int | float | str
Grid = Mapping[str, Sequence[Value]]
PUBLISHED, SEED = "published", "seed"
_PUBLISHED_FILE = Path(__file__).parent / "grids" / "published.yaml"
_LARGEST_FILE, _MOST_POINTS = 2**20, 100_000
_LONGEST_NAME, _DIGITS = 255, 16  # bytes of a file's name; of the digest in one that would be longer
_KINDS: Mapping[type, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


@dataclass(frozen=True)
class Point:
    """One run of a sweep.

    Attributes:
        values: of the options that make it this run, the seed among them.
        fixed: values left out of the name, since all runs had them when the sweep began.
    """

    values: Mapping[str, Value]
    fixed: Mapping[str, Value] = dataclasses.field(default_factory=dict)

    @property
    def seed(self) -> int:
        """Of the run."""
        return int(self.values[SEED])

    @property
    def setting(self) -> Mapping[str, Value]:
        """What the point shares with those of other seeds."""
        return {name: value for name, value in self.values.items() if name != SEED}

    @property
    def name(self) -> str:
        """``lr=1e-4,seed=0``: fit for a file's name, the same whatever the order and the spelling of the values, the seed last.

        Where it would be too long, a digest of it stands for its tail.
        """
        named = {name: value for name, value in self.setting.items() if name not in self.fixed or self.fixed[name] != value}
        text = ",".join(filter(None, (setting_name(named), f"{SEED}={self.seed}")))
        if len(text) <= _LONGEST_NAME:
            return text
        return f"{text[: _LONGEST_NAME - _DIGITS - 1]}~{hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]}"


def setting_name(setting: Mapping[str, Value]) -> str:
    """``batch_size=8,lr=1e-4``: names in alphabetical order, values without what a file's name cannot hold; empty for no values."""
    return ",".join(f"{name}={quote(_text(value), safe='+')}" for name, value in sorted(setting.items()))


def read_grid(path: str) -> dict[str, list[Value]]:
    """The values that a YAML file gives to options of ``bort finetune``.

    Args:
        path: of the file, or ``published`` for the grid of the published fine-tuning.

    Raises:
        BortError: naming file, line and key, if it is no mapping from options to lists of values that they take, each given once.
    """
    source = _PUBLISHED_FILE if path == PUBLISHED else Path(path)
    root = _compose(source)
    if not isinstance(root, yaml.MappingNode) or not root.value:
        raise BortError(f"{source}: not a grid; write one option and its values per line, such as lr: [1e-4, 1e-5]")
    options = _options()
    grid: dict[str, list[Value]] = {}
    for key, values in root.value:
        name, place = key.value, f"{source}, line {key.start_mark.line + 1}"
        if not isinstance(key, yaml.ScalarNode) or name not in options:
            raise BortError(f"{place}: no setting {name if isinstance(name, str) else 'of that kind'}; there are {', '.join(options)}")
        if name in grid:
            raise BortError(f"{place}: {name} is there twice; give all its values in one list")
        if not isinstance(values, yaml.SequenceNode) or not values.value:
            raise BortError(f"{place}: {name} needs a list of values, such as {name}: [{_text(_default(name))}]")
        grid[name] = []
        for node in values.value:
            value = _value(name, node, f"{source}, line {node.start_mark.line + 1}")
            if value in grid[name]:
                raise BortError(f"{source}, line {node.start_mark.line + 1}: {name} has the value {_text(value)} twice; leave one out")
            grid[name].append(value)
    return grid


def grid_points(grid: Grid, seeds: Sequence[int] | None = None) -> list[Point]:
    """The product of a grid's values, all seeds of a setting one after the other.

    Args:
        seeds: take the place of the grid's own; without either, the seed is 0.

    Raises:
        BortError: if a seed is negative or given twice, or there are too many points.
    """
    chosen = list(grid.get(SEED, [0]) if seeds is None else seeds)
    for seed in chosen:
        _check(SEED, seed, "--seeds")
    if len(set(chosen)) < len(chosen):
        raise BortError(f"--seeds: {next(seed for seed in chosen if chosen.count(seed) > 1)} is there twice; give each seed once")
    axes = {name: values for name, values in grid.items() if name != SEED} | {SEED: chosen}
    count = math.prod(map(len, axes.values()))
    if count > _MOST_POINTS:
        raise BortError(f"the grid has {count:,} points, at most {_MOST_POINTS:,} can be run; give fewer values")
    fixed = {name: values[0] for name, values in axes.items() if name != SEED and len(values) == 1}
    return [Point(dict(zip(axes, values, strict=True)), fixed) for values in itertools.product(*axes.values())]


def _compose(path: Path) -> Any:
    """The root node of a YAML document, None if it is empty."""
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_FILE + 1)
        if len(data) > _LARGEST_FILE:
            raise BortError(f"{path}: larger than a grid can be; give a YAML file of at most {_LARGEST_FILE} bytes")
        return yaml.compose(data.decode("utf-8"), Loader=yaml.SafeLoader)
    except OSError as error:
        raise BortError(f"{path}: {error.strerror}; --grid takes a YAML file or {PUBLISHED}") from None
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise BortError(f"{path}{line}: not YAML, {error.problem}; fix it there") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError):
        raise BortError(f"{path}: not YAML in UTF-8; write one option and its values per line, such as lr: [1e-4, 1e-5]") from None


def _options() -> dict[str, tuple[type[Any], type[Value]]]:
    """The dataclass and the type of each setting that decides the outcome of a run."""
    options = {}
    for settings in (FinetuningSettings, OptimizerSettings):
        hints = get_type_hints(settings)
        for field in dataclasses.fields(settings):
            # A setting that may be None is not set by that, so its values are of the other type.
            kinds = [kind for kind in get_args(hints[field.name]) or (hints[field.name],) if kind is not type(None)]
            options[field.name] = (settings, kinds[0])
    return options


def _default(name: str) -> Value:
    settings, kind = _options()[name]
    default = getattr(settings(), name)
    return kind() if default is None else default


def _value(name: str, node: Any, place: str) -> Value:
    """What a node stands for where ``name`` is set."""
    kind = _options()[name][1]
    text = node.value if isinstance(node, yaml.ScalarNode) else None
    try:
        value = None if text is None else {"true": True, "false": False}[text] if kind is bool else kind(text)
    except (KeyError, ValueError):
        value = None
    if value is None:
        shown = f'"{text}"' if text is not None else "a list or mapping"
        raise BortError(f"{place}: {name} takes {_KINDS[kind]}, not {shown}")
    _check(name, value, place)
    return value


def _check(name: str, value: Value, place: str) -> None:
    """Refuse a value that a run would refuse."""
    try:
        _options()[name][0](**{name: value})
    except BortError as error:
        raise BortError(f"{place}: {error}") from None


def _text(value: Value) -> str:
    """A value as short as it can be read back: 1e-4, 0.35, 100, true."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        mantissa, exponent = f"{Decimal(repr(value)).normalize():e}".split("e")
        return f"{mantissa}e{int(exponent)}" if 0 < abs(value) < 0.01 or abs(value) >= 1e16 else repr(value).removesuffix(".0")
    return str(value)
