"""Structures and their labels as flat arrays, from which a batch is cut by a few numpy calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from ase_potnet.graph import AtomsBatch

if TYPE_CHECKING:
    from .data import Record

Floats = NDArray[np.float64]
NO_KIND = ""  # kind of frames that have none
REPLAY_KIND = "replay"  # of frames against forgetting


@dataclass(frozen=True)
class StructureArrays:
    """S structures of N atoms in all; the atoms of structure s are rows first[s] to first[s + 1].

    ids: (S,) names
    numbers: (N,) atomic numbers
    positions: (N, 3) Å
    cell: (S, 3, 3) Å
    pbc: (S, 3)
    first: (S + 1,)
    values: columns of the labels by name, NaN where missing; one row a structure, or one an atom for "forces":
        property targets (S, n_targets) as "targets"; "energy" (S,) eV; "forces" (N, 3) eV/Å; "stress" (S, 3, 3) eV/Å^3
    kind: (S,) index into kinds
    kinds: names of the kinds of frames, such as "rattled"
    """

    ids: tuple[str, ...]
    numbers: NDArray[np.int64]
    positions: Floats
    cell: Floats
    pbc: NDArray[np.bool_]
    first: NDArray[np.int64]
    values: dict[str, Floats] = field(default_factory=dict)
    kind: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    kinds: tuple[str, ...] = (NO_KIND,)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def n_atoms(self) -> NDArray[np.int64]:
        """Atoms of every structure. (S,)"""
        return np.diff(self.first)

    def has(self, name: str) -> NDArray[np.bool_]:
        """Whether the energy, the forces (of every atom) or the stress of a structure are known. (S,)"""
        values = self.values[name]
        known = np.asarray(np.isfinite(values).reshape(len(values), -1).all(axis=1))
        return np.asarray(np.logical_and.reduceat(known, self.first[:-1])) if name == "forces" else known

    @cached_property
    def family(self) -> NDArray[np.int64]:
        """Number of the family of every structure: those with the same cell and atoms, at other positions. (S,)"""
        known: dict[tuple[bytes, ...], int] = {}
        numbers = np.split(self.numbers, self.first[1:-1])
        keys = zip(numbers, self.cell, self.pbc, strict=True)
        return np.array([known.setdefault(tuple(part.tobytes() for part in key), len(known)) for key in keys])

    def atom_rows(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows of the atoms of some structures, structure after structure."""
        counts = self.n_atoms[rows]
        ends = np.cumsum(counts)
        return np.repeat(self.first[rows] - (ends - counts), counts) + np.arange(ends[-1] if len(ends) else 0)

    def take(self, rows: NDArray[np.int64]) -> StructureArrays:
        """The structures of these rows, in this order."""
        atoms = self.atom_rows(rows)
        return StructureArrays(
            ids=tuple(self.ids[row] for row in rows),
            numbers=self.numbers[atoms],
            positions=self.positions[atoms],
            cell=self.cell[rows],
            pbc=self.pbc[rows],
            first=np.concatenate([[0], np.cumsum(self.n_atoms[rows])]),
            values={name: array[atoms if name == "forces" else rows] for name, array in self.values.items()},
            kind=self.kind[rows],
            kinds=self.kinds,
        )

    def composition(self) -> Floats:
        """Number of atoms of each element in every structure. (S, 119)"""
        structure = np.repeat(np.arange(len(self)), self.n_atoms)
        counts = np.bincount(structure * 119 + self.numbers, minlength=len(self) * 119)
        return counts.reshape(-1, 119).astype(np.float64)

    def holds(self, elements: NDArray[np.int64] | NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Whether a structure has atoms of these elements: atomic numbers, or a mask of them (119,). (S,)"""
        return np.asarray(self.composition()[:, elements].any(axis=1))

    def atoms_batch(self, rows: NDArray[np.int64], dtype: torch.dtype) -> AtomsBatch:
        """The structures of these rows as a batch on the host, in float32 with their atoms near the origin."""
        atoms = self.atom_rows(rows)
        batch = np.repeat(np.arange(len(rows)), self.n_atoms[rows])
        return AtomsBatch(
            numbers=torch.from_numpy(self.numbers[atoms]),
            positions=torch.from_numpy(self.positions[atoms]),
            cell=torch.from_numpy(self.cell[rows]),
            pbc=torch.from_numpy(self.pbc[rows]),
            batch=torch.from_numpy(batch),
        ).in_precision(dtype)


def structure_arrays(records: Sequence[Record]) -> StructureArrays:
    """Structures alone; `with_targets` and `with_labels` add what a model learns.

    Raises:
        ValueError: no records, or a structure that no model can read (see `ase_potnet.graph.batch_structures`).
    """
    if not len(records):
        raise ValueError("records: wanted at least one structure, got none")
    atoms = [record.atoms for record in records]
    counts = [len(structure) for structure in atoms]
    return StructureArrays(
        ids=tuple(record.id for record in records),
        numbers=np.concatenate([structure.numbers for structure in atoms]).astype(np.int64),
        positions=np.concatenate([structure.positions for structure in atoms]).astype(np.float64),
        cell=np.stack([structure.cell.array for structure in atoms]).astype(np.float64),
        pbc=np.stack([structure.pbc for structure in atoms]).astype(bool),
        first=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        kind=np.zeros(len(atoms), dtype=np.int64),
    )


def with_targets(arrays: StructureArrays, records: Sequence[Record], names: Sequence[str]) -> StructureArrays:
    """The arrays with the named targets, (S, n_targets), NaN where a record has no value."""
    rows = [[record.targets.get(name, np.nan) for name in names] for record in records]
    return replace(arrays, values=arrays.values | {"targets": np.array(rows, dtype=np.float64)})


def with_labels(arrays: StructureArrays, records: Sequence[Record]) -> StructureArrays:
    """The arrays with energy, forces and stress of the records, NaN where missing, and their kinds."""
    from .data import labels

    n, n_rows = len(arrays), int(arrays.first[-1])
    energy, forces, stress = np.full(n, np.nan), np.full((n_rows, 3), np.nan), np.full((n, 3, 3), np.nan)
    for row, record in enumerate(records):
        label = labels(record)
        if label.energy is not None:
            energy[row] = label.energy
        if label.forces is not None:
            forces[arrays.first[row] : arrays.first[row + 1]] = label.forces
        if label.stress is not None and record.atoms.pbc.all():  # of a slab it depends on the vacuum
            xx, yy, zz, yz, xz, xy = label.stress
            stress[row] = [[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]
    values = arrays.values | {"energy": energy, "forces": forces, "stress": stress}
    names = [str(record.atoms.info.get("kind", NO_KIND)) for record in records]
    kinds = tuple(dict.fromkeys(names))
    index = {name: i for i, name in enumerate(kinds)}
    return replace(arrays, values=values, kinds=kinds, kind=np.array([index[name] for name in names], dtype=np.int64))


def join_arrays(parts: Iterable[StructureArrays]) -> StructureArrays:
    """All structures of several arrays with the same columns."""
    parts = list(parts)
    kinds = tuple(dict.fromkeys(name for part in parts for name in part.kinds))
    index = {name: i for i, name in enumerate(kinds)}

    def joined(column: Callable[[StructureArrays], NDArray[np.float64]]) -> NDArray[np.float64]:
        return np.concatenate([column(part) for part in parts])

    return StructureArrays(
        ids=tuple(name for part in parts for name in part.ids),
        numbers=np.concatenate([part.numbers for part in parts]),
        positions=joined(lambda part: part.positions),
        cell=joined(lambda part: part.cell),
        pbc=np.concatenate([part.pbc for part in parts]),
        first=np.concatenate([[0], np.cumsum(np.concatenate([part.n_atoms for part in parts]))]),
        values={name: joined(lambda part, name=name: part.values[name]) for name in parts[0].values},  # type: ignore[misc]
        kind=np.concatenate([np.array([index[name] for name in part.kinds])[part.kind] for part in parts]),
        kinds=kinds,
    )
