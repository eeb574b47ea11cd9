"""Checks of arguments, and of settings against those of an earlier run."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Real
from typing import Any

LARGEST_SYMPREC = 0.5  # Å; beyond, spglib takes atoms for one another, and crashes


def is_finite(value: Any) -> bool:
    """Whether a value is a finite real number."""
    return isinstance(value, Real) and math.isfinite(float(value))


@dataclass(frozen=True)
class Change:
    """A setting, by its dotted key, that was another in an earlier run."""

    key: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.key}: {self.old!r} there, {self.new!r} now"


def changes(old: Any, new: Any, key: str = "") -> Iterator[Change]:
    """Where nested settings differ as JSON does, in which tuples are lists."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in dict.fromkeys([*old, *new]):
            yield from changes(old.get(name), new.get(name), f"{key}.{name}" if key else str(name))
    elif json.loads(json.dumps(old)) != json.loads(json.dumps(new)):
        yield Change(key, old, new)
