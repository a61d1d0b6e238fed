"""Typed access to the fields of untrusted JSON objects; a missing or mistyped field is an error that names its place.

Notable: half of a surrogate pair, which JSON can write and no encoding can hold, is refused here rather than by a tokenizer much later. An
``idx`` must fit into 63 bits, and one written as text is converted only if it is short. ``NaN`` and infinity, which Python reads and writes
but JSON does not know, are refused.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, NoReturn

from bort.errors import BortError


@dataclass(frozen=True)
class JsonObject:
    """A JSON object, and where it was read.

    Every method raises a BortError that begins with ``where`` if the field is missing or of another type.

    Attributes:
        values: its fields.
        where: file, line and so on, as an error names them.
    """

    values: dict[str, Any]
    where: str

    @classmethod
    def parse(cls, text: str, where: str) -> JsonObject:
        """The object that ``text`` writes.

        Raises:
            BortError: if it is not JSON, or not an object.
        """
        try:
            values = json.loads(text, parse_constant=refuse_constant, parse_float=_finite)
        except (ValueError, RecursionError) as error:
            raise BortError(f"{where}: not JSON: {error}") from error
        return cls._of(values, where)

    @classmethod
    def _of(cls, values: object, where: str) -> JsonObject:
        if not isinstance(values, dict):
            raise BortError(f"{where}: not a JSON object")
        return cls(values, where)

    def require(self, name: str) -> Any:
        """Whatever the field holds, null included."""
        if name not in self.values:
            raise BortError(f'{self.where}: no field "{name}"')
        return self.values[name]

    def text(self, name: str) -> str:
        """Text of a field; a full stop in the name leads into a nested object."""
        value: Any = self.values
        for key in name.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        return self._text(value, name)

    def texts(self, name: str) -> list[str]:
        """The texts of a field that holds a list of them."""
        return [self._text(value, name) for value in self.items(name)]

    def _text(self, value: object, name: str) -> str:
        if not isinstance(value, str):
            raise BortError(f'{self.where}: no text in the field "{name}"')
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise BortError(f'{self.where}: half of a surrogate pair in the field "{name}", character {error.start}') from error
        return value

    def number(self, name: str) -> int:
        """A whole number from 0 to 2^63 - 1, which may be written as text of up to 18 digits."""
        value = self.values.get(name)
        if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 18:
            return int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63:
            return value
        raise BortError(f'{self.where}: the field "{name}" holds no whole number')

    def items(self, name: str) -> list[Any]:
        """The elements of a field that holds a list."""
        value = self.values.get(name)
        if not isinstance(value, list):
            raise BortError(f'{self.where}: no list in the field "{name}"')
        return value

    def child(self, name: str) -> JsonObject:
        """The object that a field holds."""
        return self._of(self.require(name), f"{self.where}, {name}")

    def children(self, name: str, called: str) -> list[JsonObject]:
        """The objects of a field that holds a list of them; an error calls them ``called`` and counts from 1."""
        return [self._of(value, f"{self.where}, {called} {number}") for number, value in enumerate(self.items(name), start=1)]


def refuse_constant(name: str) -> NoReturn:
    """For ``parse_constant`` of the json module, which calls it with ``NaN``, ``Infinity`` or ``-Infinity``."""
    raise ValueError(f"{name} is no number")


def shown(value: object) -> str:
    """A value from a file as an error shows it: as JSON in ASCII, so that look-alikes differ, cut where it is long; or what it holds."""
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return f"an object with {', '.join(shown(name) for name in [*value][:4]) or 'nothing'}"
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"{digits:.40} is too large a number")
    return value
