"""Splits into training, validation and test records: official files, seeded shuffles, by group."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ase_potnet.readers.files import open_text

from .dataset import Dataset, Record

FRACTIONS = (0.8, 0.1, 0.1)  # training, validation, test
SEED = 123  # of ALIGNN, Matformer and PotNet
_PARTS = ("train", "val", "test")


class Parts(NamedTuple):
    """A data set taken apart."""

    train: Dataset
    val: Dataset
    test: Dataset


@dataclass(frozen=True)
class Split:
    """Ids of the training, validation and test records.

    Raises:
        ValueError: an id occurs twice, in one part or in two.
    """

    train: Sequence[str]
    val: Sequence[str]
    test: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in _PARTS:
            object.__setattr__(self, name, tuple(map(str, getattr(self, name))))
        count = Counter(id for name in _PARTS for id in getattr(self, name))  # noqa: A001
        twice = [name for name, n in count.items() if n > 1]
        if twice:
            where = ", ".join(name for name in _PARTS if twice[0] in getattr(self, name))
            raise ValueError(f"split: {len(twice)} ids occur more than once, the first, {twice[0]!r}, in {where}")

    def apply(self, dataset: Dataset, *, missing: str = "error") -> Parts:
        """The three parts of the data set, each in the order of the split.

        Apply a split before `Dataset.select`, so that records without a value do not count as missing.

        Args:
            dataset: the records; those in no part are left out
            missing: what to do about ids that are not in the data set: "error", or "skip" them. Ids of broken
                entries are skipped anyway.
        """
        if missing not in ("error", "skip"):
            raise ValueError(f"missing: wanted 'error' or 'skip', got {missing!r}")
        broken = {name for name, _ in dataset.broken}
        wanted = [name for part in _PARTS for name in getattr(self, part)]
        unknown = [name for name in wanted if name not in dataset and name not in broken]
        if unknown and missing == "error":
            raise ValueError(
                f"split: {len(unknown)} of {len(wanted)} ids are not in the data set, the first is {unknown[0]!r}; "
                "apply the split before select(), or pass missing='skip'"
            )
        return Parts(*(dataset.subset(name for name in getattr(self, part) if name in dataset) for part in _PARTS))

    def to_json(self, path: str | Path) -> Path:
        """Write {"train": [ids], "val": [ids], "test": [ids]}."""
        path = Path(path)
        text = json.dumps({name: list(getattr(self, name)) for name in _PARTS})
        path.write_text(text + "\n", encoding="utf-8")
        return path

    @classmethod
    def from_json(cls, path: str | Path) -> Split:
        """A split file: an object with train, val and perhaps test, each a list of ids or an object keyed by id.

        The latter is the layout of JARVIS-Leaderboard benchmarks (id: value), zipped or not. The keys may also be
        id_train, id_val, id_test, as ALIGNN writes them.
        """
        with open_text(Path(path)) as stream:
            try:
                data = json.load(stream)
            except json.JSONDecodeError as error:
                raise ValueError(f"path: {path} is not JSON: {error}") from error
        if not isinstance(data, dict):
            raise ValueError(f"path: {path} holds no object with train, val and test")
        parts = {name: data.get(name) or data.get(f"id_{name}") or () for name in _PARTS}
        if not parts["train"] or not all(isinstance(part, (list, dict, tuple)) for part in parts.values()):
            raise ValueError(f"path: {path} wants lists of ids under train, val and test; it has {', '.join(data)}")
        return cls(**{name: list(part) for name, part in parts.items()})


def seeded_split(
    source: Dataset | Iterable[str],
    *,
    fractions: tuple[float, float, float] = FRACTIONS,
    seed: int = SEED,
) -> Split:
    """The split of ALIGNN, Matformer and PotNet: a shuffle of the record numbers by Python's `random`.

    Training takes the first int(fraction n) of the shuffled numbers, test the last ones, validation those before
    the test ones; where that is none for validation or test, they get one, taken from training if need be.
    To repeat a published split, first select the records with a value, in the order of the file.
    """
    ids = source.ids if isinstance(source, Dataset) else list(source)
    n_train, n_val, n_test = _sizes(len(ids), fractions)
    order = list(range(len(ids)))
    random.Random(seed).shuffle(order)  # the same sequence as random.seed(seed); random.shuffle(order)
    names = [ids[i] for i in order]
    n = len(names)
    return Split(names[:n_train], names[n - n_val - n_test : n - n_test], names[n - n_test :])


def group_split(
    dataset: Dataset,
    *,
    fractions: tuple[float, float, float] = FRACTIONS,
    seed: int = SEED,
    group: Callable[[Record], str] | None = None,
) -> Split:
    """A split that has no group in two parts. It depends on ids, groups and seed, not on the order of the records.

    Groups are shuffled and fill the test part, then the validation part, as long as they fit; the rest is training.

    Args:
        dataset: the records
        fractions: of training, validation and test, in records
        seed: of the shuffle
        group: a record's group; None takes `record.group`, and its id if that is None. `formula_group` keeps
            all structures of one reduced formula together.
    """
    name_of = group or (lambda record: record.id if record.group is None else record.group)
    members: dict[str, list[str]] = {}
    for record in dataset:
        members.setdefault(name_of(record), []).append(record.id)
    names = sorted(members)
    random.Random(seed).shuffle(names)
    _, n_val, n_test = _sizes(len(dataset), fractions)
    parts: dict[str, list[str]] = {name: [] for name in _PARTS}
    for name in names:
        ids = sorted(members[name])
        room = {"test": n_test - len(parts["test"]), "val": n_val - len(parts["val"]), "train": len(ids)}
        parts[next(part for part in ("test", "val", "train") if room[part] >= len(ids))] += ids
    for part, size in (("train", 1), ("val", n_val), ("test", n_test)):
        if size and not parts[part]:
            raise ValueError(
                f"dataset: its {len(names)} groups (structures that frames were made from) are too few or too large to "
                f"fill the {part} part; take more of them, or a seeded split (data.split.kind=seeded in a recipe), "
                "which puts frames of one structure into several parts"
            )
    return Split(**parts)


def formula_group(record: Record) -> str:
    """The reduced formula of a record, to split by: polymorphs stay together."""
    formula = record.atoms.symbols.formula.reduce()[0]
    return formula.format("hill")


def _sizes(n: int, fractions: tuple[float, float, float]) -> tuple[int, int, int]:
    """Numbers of training, validation and test records, one at least of each part that is wanted."""
    if len(fractions) != 3 or min(fractions) < 0 or fractions[0] == 0 or sum(fractions) > 1 + 1e-9:
        raise ValueError(f"fractions: wanted three numbers from 0 that sum to 1 at most, got {fractions}")
    n_val, n_test = (max(1, int(fraction * n)) if fraction > 0 else 0 for fraction in fractions[1:])
    n_train = min(int(fractions[0] * n), n - n_val - n_test)
    if n_train < 1:
        wanted = ", ".join(f"{fraction} for {name}" for name, fraction in zip(_PARTS, fractions, strict=True))
        raise ValueError(f"fractions: {n} records are too few for {wanted} (data.split.fractions in a recipe)")
    return n_train, n_val, n_test
