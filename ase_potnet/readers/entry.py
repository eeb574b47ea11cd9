"""One entry of a source of structures, not yet built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ase import Atoms

ID_KEYS = ("id", "material_id", "jid", "mp_id", "mat_id")  # where an entry's id is looked for, in this order
REASON_LENGTH = 200  # characters kept of an error's message


@dataclass(frozen=True)
class Entry:
    """One entry of a source, not yet built.

    Attributes:
        id: its name in the source
        values: its other fields, numbers or not
        build: makes the structure; whatever it raises makes the entry a broken one
        group: entries of one group are variants of one another
    """

    id: str
    values: Mapping[str, Any]
    build: Callable[[], Atoms]
    group: str | None = None


def reason_of(error: Exception) -> str:
    """What is wrong with an entry, as text; the type of the error unless it is a ValueError."""
    text = " ".join(str(error).split())[:REASON_LENGTH]
    return text if isinstance(error, ValueError) and text else f"{type(error).__name__}: {text}"


def refuse(reason: str) -> Atoms:
    """Stands in for the structure of an entry that has none."""
    raise ValueError(reason)
