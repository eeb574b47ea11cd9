"""Records and data sets: structures with target values, and the account of what could not be used."""

from __future__ import annotations

import bz2
import gzip
import lzma
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, overload

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.stress import full_3x3_to_voigt_6_stress
from numpy.typing import NDArray

from ase_potnet.file_safety import replacing

BROKEN_SHOWN = 5  # broken entries that a summary lists


@dataclass(frozen=True)
class Record:
    """One structure of a data set.

    Attributes:
        id: name of the structure, unique in its data set
        atoms: the structure, Å; a calculation's energy, forces and stress are in `atoms.calc` (see `labels`)
        targets: target name to value, in the units of the source; a missing value has no key
        group: records of one group belong in one part of a split; None: the record stands alone
    """

    id: str
    atoms: Atoms
    targets: dict[str, float]
    group: str | None = None


@dataclass(frozen=True)
class Labels:
    """Energy, forces and stress of one structure; None where there is none.

    Attributes:
        energy: eV per cell
        forces: eV/Å, (n_atoms, 3)
        stress: eV/Å^3, +(1/V) dE/dε, Voigt order xx yy zz yz xz xy, (6,)
    """

    energy: float | None
    forces: NDArray[np.float64] | None
    stress: NDArray[np.float64] | None


def labels(source: Record | Atoms) -> Labels:
    """Energy, forces and stress stored with a structure. Nothing is calculated.

    What is no finite number counts as missing: NaN, infinity, text.
    """
    atoms = source.atoms if isinstance(source, Record) else source
    results = getattr(atoms.calc, "results", {})
    energy, forces, stress = (_label(name, results.get(name), len(atoms)) for name in ("energy", "forces", "stress"))
    return Labels(None if energy is None else float(energy), forces, stress)


def relabelled(records: Iterable[Record], names: Mapping[str, str]) -> list[Record]:
    """The records with labels from fields of other names, in the units of `Labels`.

    names: "energy", "forces" or "stress" (six numbers, or 3 by 3) to the name of the field

    Raises:
        ValueError: no record has such a field.
    """
    records = list(records)
    fields = [{**record.atoms.arrays, **record.atoms.info, **record.targets} for record in records]
    for label, name in names.items():
        if not any(name in of_one for of_one in fields):
            raise ValueError(f"labels.{label}: no structure has a field {name!r}")
    result = []
    for record, of_one in zip(records, fields, strict=True):
        atoms, found = record.atoms.copy(), dict(getattr(record.atoms.calc, "results", {}))
        for label, name in names.items():
            found.pop(label, None)
            value = _label(label, of_one.get(name), len(atoms))
            if value is not None:
                found[label] = value
        atoms.calc = SinglePointCalculator(atoms)
        atoms.calc.results = found
        result.append(replace(record, atoms=atoms))
    return result


def _label(name: str, value: Any, n_atoms: int) -> NDArray[np.float64] | None:
    """A label as energy (), forces (n_atoms, 3) or stress (6,); None if it is missing, not finite or of other shape."""
    if value is None:
        return None
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):  # text, or rows of unequal length
        return None
    if name == "energy" and array.size == 1:
        array = array.reshape(())
    if name == "stress" and array.size == 9:
        array = full_3x3_to_voigt_6_stress(array.reshape(3, 3))
    shape = {"energy": (), "forces": (n_atoms, 3), "stress": (6,)}[name]
    return array if array.shape == shape and np.isfinite(array).all() else None


class Dataset(Sequence[Record]):
    """Records with unique ids, in the order of the source.

    Args:
        records: the records
        skipped: target name to the number of records (read, or dropped by `select`) without a value for it
        broken: (id, reason) of every entry that could not be read

    Raises:
        ValueError: for an id that occurs twice.
    """

    def __init__(
        self,
        records: Iterable[Record],
        *,
        skipped: Mapping[str, int] | None = None,
        broken: Iterable[tuple[str, str]] = (),
    ) -> None:
        self._records = tuple(records)
        self._index = {record.id: i for i, record in enumerate(self._records)}
        self.skipped = dict(skipped or {})
        self.broken = list(broken)
        if len(self._index) < len(self._records):
            repeated = [name for name, n in Counter(record.id for record in self._records).items() if n > 1]
            raise ValueError(f"records: ids must be unique, {_some(repeated)} occur more than once")

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Dataset: ...
    def __getitem__(self, index: int | slice) -> Record | Dataset:
        if isinstance(index, slice):
            return Dataset(self._records[index])
        return self._records[index]

    def __contains__(self, item: object) -> bool:
        """Whether a record, or a record of that id, is in the data set."""
        return (item.id if isinstance(item, Record) else item) in self._index

    def __repr__(self) -> str:
        return f"Dataset({len(self):,} records, {len(self.target_names)} targets, {len(self.broken)} broken)"

    @property
    def ids(self) -> list[str]:
        """The ids, in order."""
        return list(self._index)

    @property
    def target_names(self) -> list[str]:
        """Names of the targets that at least one record has."""
        return list(dict.fromkeys(name for record in self._records for name in record.targets))

    def record(self, id: str) -> Record:  # noqa: A002
        """The record of that id."""
        if id not in self._index:
            raise ValueError(f"id: no record {id!r} among {len(self):,}")
        return self._records[self._index[id]]

    def select(self, *targets: str) -> Dataset:
        """The records that have a value for every one of the targets.

        `skipped` of the result counts, for each of these targets, the records without a value.
        """
        known = self.target_names
        for name in targets:
            if name not in known:
                raise ValueError(f"targets: no record has a value for {name!r}; there are {', '.join(known) or 'none'}")
        missing = {name: sum(name not in record.targets for record in self._records) for name in targets}
        kept = (record for record in self._records if all(name in record.targets for name in targets))
        return Dataset(kept, skipped=missing, broken=self.broken)

    def subset(self, ids: Iterable[str]) -> Dataset:
        """The records with these ids, in this order."""
        wanted = list(ids)
        unknown = [name for name in wanted if name not in self._index]
        if unknown:
            raise ValueError(f"ids: {len(unknown)} of {len(wanted)} are not in the data set: {_some(unknown)}")
        return Dataset(self._records[self._index[name]] for name in wanted)

    def summary(self) -> str:
        """Sizes, elements, targets with their statistics, and what was skipped or broken, as text."""
        lines = [self._size_line()]
        names = list(dict.fromkeys([*self.target_names, *self.skipped]))
        if names:
            width = max(len("target"), *map(len, names))
            heads = ("present", "missing", "mean", "std", "min", "max")
            lines.append(f"{'target':{width}}" + "".join(f"{head:>12}" for head in heads))
            lines += [f"{name:{width}}" + self._statistics(name) for name in names]
        found = [labels(record) for record in self._records]
        for what in ("energy", "forces", "stress"):
            if count := sum(getattr(label, what) is not None for label in found):
                lines.append(f"{count:,} structures with {what}")
        if groups := {record.group for record in self._records if record.group is not None}:
            lines.append(f"{len(groups):,} groups")
        if self.broken:
            lines.append(f"{len(self.broken):,} broken entries left out")
            lines += [f"  {name}: {reason}" for name, reason in self.broken[:BROKEN_SHOWN]]
        return "\n".join(lines)

    def _size_line(self) -> str:
        if not self._records:
            return "0 structures"
        sizes = [len(record.atoms) for record in self._records]
        elements = {int(number) for record in self._records for number in record.atoms.numbers}
        atoms = f"{min(sizes)} to {max(sizes)} atoms, {np.mean(sizes):.1f} on average"
        return f"{len(self):,} structures, {len(elements)} elements, {atoms}"

    def _statistics(self, name: str) -> str:
        values = np.array([record.targets[name] for record in self._records if name in record.targets])
        counts = f"{len(values):>12,}{len(self) - len(values):>12,}"
        if not len(values):
            return counts
        return counts + "".join(f"{x:>12.5g}" for x in (values.mean(), values.std(), values.min(), values.max()))

    def to_extxyz(self, path: str | Path) -> Path:
        """Write all records to one extended XYZ file that `open_dataset` reads back; its folder is made if need be.

        Ids, groups, targets and labels are kept; positions and forces are rounded to 1e-8 Å (eV/Å), cells are not.
        A name ending in .gz, .bz2 or .xz compresses. The file takes its place once it is complete.
        """
        from ase.io.extxyz import write_xyz

        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        packers: dict[str, Callable[..., IO[str]]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
        pack = packers.get(path.suffix, _as_text)
        with replacing(path.resolve()) as raw, pack(raw, "wt", encoding="utf-8") as file:
            for record in self._records:
                atoms = record.atoms.copy()
                atoms.calc = record.atoms.calc
                atoms.info = {key: value for key, value in atoms.info.items() if key not in ("id", "group")}
                labels = {} if atoms.calc is None else atoms.calc.results  # a target may be one of these
                atoms.info |= {name: value for name, value in record.targets.items() if name not in labels}
                atoms.info["id"] = record.id
                if record.group is not None:
                    atoms.info["group"] = record.group
                write_xyz(file, atoms)
        return path


def join(datasets: Iterable[Dataset]) -> Dataset:
    """All records of several data sets. An id that occurs again gets a suffix #2, #3, ... (see `unique`)."""
    parts = list(datasets)
    records = unique([record for part in parts for record in part])
    names = dict.fromkeys(name for part in parts for name in [*part.target_names, *part.skipped])
    skipped = {name: sum(name not in record.targets for record in records) for name in names}
    return Dataset(records, skipped=skipped, broken=[entry for part in parts for entry in part.broken])


def unique(records: Sequence[Record]) -> list[Record]:
    """The records with unique ids: the second of an id becomes `id#2`, the third `id#3`, and so on.

    Records that shared an id and have no group get that id as their group, so that a split by group keeps them
    together.
    """
    total = Counter(record.id for record in records)
    if len(total) == len(records):
        return list(records)
    taken, count = set(total), Counter[str]()
    result = []
    for record in records:
        name = record.id
        count[name] += 1
        if total[name] > 1:
            group = name if record.group is None else record.group
            new = name
            while count[name] > 1 and (new := f"{name}#{count[name]}") in taken:
                count[name] += 1
            taken.add(new)
            record = replace(record, id=new, group=group)
        result.append(record)
    return result


def as_number(value: Any) -> float | None:
    """The value as a finite number; None for 'na', '', None, NaN, infinity, other text, and anything but a scalar."""
    if value is None or value == "na" or isinstance(value, (list, dict, tuple)):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _as_text(file: IO[bytes], mode: str, encoding: str) -> IO[str]:
    """Text for an open file, which stays open when the text is closed."""
    return open(file.fileno(), mode, encoding=encoding, closefd=False)


def _some(names: Sequence[str], shown: int = 5) -> str:
    """The first few names, as text."""
    return ", ".join(map(repr, names[:shown])) + (", ..." if len(names) > shown else "")
