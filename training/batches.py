"""Which structures go together: batches of a fixed size, or of similar cost, in an order fixed by the seed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ase_potnet.graph import PairCutoffs

from .arrays import StructureArrays

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Budget:
    """What one batch may hold; a batch is closed before a limit is passed, but holds one structure at least.

    structures: number of structures
    atoms: number of atoms
    pairs: number of pairs of atoms, Σ N², what complete edges cost
    edges: estimated number of local edges
    cutoff: of the edges, Å, or by the elements of two atoms
    """

    structures: int | None = None
    atoms: int | None = None
    pairs: int | None = None
    edges: int | None = None
    cutoff: float | PairCutoffs = 5.0

    def __post_init__(self) -> None:
        limits = (self.structures, self.atoms, self.pairs, self.edges)
        if all(limit is None for limit in limits) or any(limit is not None and limit < 1 for limit in limits):
            raise ValueError(f"budget: wanted a positive limit of structures, atoms, pairs or edges, got {self}")

    def costs(self, arrays: StructureArrays) -> list[NDArray[np.float64]]:
        """Share of each limit that every structure takes. (S,) each"""
        n = arrays.n_atoms.astype(np.float64)
        costs = []
        if self.structures is not None:
            costs.append(np.full(len(n), 1 / self.structures))
        if self.atoms is not None:
            costs.append(n / self.atoms)
        if self.pairs is not None:
            costs.append(n * n / self.pairs)
        if self.edges is not None:
            costs.append(self._edges(arrays) / self.edges)
        return costs

    def _edges(self, arrays: StructureArrays) -> NDArray[np.float64]:
        """Estimated from the density; a structure that is not periodic everywhere has 0.1 atoms per Å^3. (S,)"""
        composition = arrays.composition()
        numbers = np.flatnonzero(composition.any(axis=0))
        composition, index = composition[:, numbers], torch.from_numpy(numbers)
        cutoffs = PairCutoffs.of(self.cutoff).between(index[:, None], index).numpy()
        spheres = 4 / 3 * math.pi * cutoffs**3  # (elements, elements)
        volume = np.abs(np.linalg.det(arrays.cell))
        whole = arrays.pbc.all(axis=1) & (volume > 0)
        inside = (composition @ spheres * composition).sum(axis=1)  # Σ over pairs of atoms
        n = arrays.n_atoms.astype(np.float64)
        return np.where(whole, inside / np.where(whole, volume, 1.0), np.minimum(n * n, inside / n / 10))


def pack(order: Rows, costs: list[NDArray[np.float64]], smallest: int = 1) -> list[Rows]:
    """Consecutive runs of order whose costs sum to 1 at most, each of `smallest` structures at least."""
    sums = [np.concatenate([[0.0], np.cumsum(cost[order])]) for cost in costs]
    batches: list[Rows] = []
    start = 0
    while start < len(order):
        ends = [int(np.searchsorted(total, total[start] + 1 + 1e-9, side="right")) - 1 for total in sums]
        stop = max(min(ends), start + smallest)
        if len(order) - stop < smallest:  # too few are left for another batch
            stop = len(order) if len(order) - stop else stop
        batches.append(order[start:stop])
        start = stop
    return batches


def in_pairs(order: Rows, family: NDArray[np.int64]) -> Rows:
    """The order with every second structure of a family moved behind the one before it."""
    by_family = np.argsort(family[order], kind="stable")
    members = family[order][by_family]
    start = np.searchsorted(members, members)  # where the family of each begins
    second = (np.arange(len(order)) - start) % 2
    place = np.empty((2, len(order)), dtype=np.int64)  # of the first of a pair, and which of the two it is
    place[0, by_family] = by_family[np.arange(len(order)) - second]
    place[1, by_family] = second
    return order[np.lexsort(place[::-1])]


def pairs_in(rows: Rows, family: NDArray[np.int64]) -> NDArray[np.int64]:
    """Places of neighbours of one family in a batch; a structure is in one pair at most. (P, 2)"""
    pairs: list[tuple[int, int]] = []
    for place in np.flatnonzero(family[rows[1:]] == family[rows[:-1]]).tolist():
        if not pairs or pairs[-1][1] != place:
            pairs.append((place, place + 1))
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def units(rows: Rows, family: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number, from 0, of the pair or single structure that every row belongs to. (len(rows),)"""
    first = np.ones(len(rows), dtype=bool)
    first[pairs_in(rows, family)[:, 1]] = False
    return np.cumsum(first) - 1


def shuffled_batches(
    arrays: StructureArrays, budget: Budget, *, seed: int, epoch: int, smallest: int = 1, paired: bool = False
) -> list[Rows]:
    """The batches of an epoch. They depend on the seed and the number of the epoch, on nothing else.

    paired: structures of one family (see ``StructureArrays``) come in twos, one behind the other.
    """
    order = np.random.default_rng([seed, epoch]).permutation(len(arrays))
    if not paired:
        return pack(order, budget.costs(arrays), smallest)
    order = in_pairs(order, arrays.family)
    unit = units(order, arrays.family)
    costs = [np.bincount(unit, cost[order]).astype(np.float64) for cost in budget.costs(arrays)]
    packed = pack(np.arange(unit[-1] + 1), costs, smallest)
    return np.split(order, np.searchsorted(unit, [batch[0] for batch in packed[1:]]))


def sorted_batches(arrays: StructureArrays, budget: Budget) -> list[Rows]:
    """Batches of structures of similar size, for evaluation."""
    return pack(np.argsort(arrays.n_atoms, kind="stable"), budget.costs(arrays))


def share(batch: Rows, arrays: StructureArrays, rank: int, world: int, paired: bool = False) -> Rows:
    """The structures of a batch that one of several processes takes: dealt out by size, so that costs are alike.

    paired: the two of a pair go to the same process; pairs come first there.
    """
    if world == 1:
        return batch
    unit = units(batch, arrays.family) if paired else np.arange(len(batch))
    size = np.bincount(unit, arrays.n_atoms[batch])
    mine = np.argsort(size, kind="stable")[rank::world]
    mine = mine[np.argsort(-np.bincount(unit)[mine], kind="stable")]
    return batch[np.concatenate([np.flatnonzero(unit == one) for one in mine])]


class Collate(Protocol):
    """Makes a batch of some rows of the arrays."""

    def __call__(self, arrays: StructureArrays, rows: Rows) -> Any: ...


class Position(Protocol):
    """Where the training is: number of the epoch and of the batches done in it."""

    epoch: int
    batch: int


class TrainingBatches:
    """The batches that are still to come in the current epoch, for one of `world` processes.

    Every iteration starts where `position` says, so that a training resumes in the middle of an epoch.
    """

    def __init__(
        self,
        arrays: StructureArrays,
        collate: Collate,
        budget: Budget,
        position: Position,
        *,
        seed: int,
        rank: int = 0,
        world: int = 1,
        paired: bool = False,
    ) -> None:
        if len(arrays) < world:
            raise ValueError(f"data: {len(arrays)} training structures are too few for {world} processes")
        self.arrays, self.collate, self.budget, self.position = arrays, collate, budget, position
        self.seed, self.rank, self.world, self.paired = seed, rank, world, paired
        self._plan: tuple[int, list[Rows]] = (-1, [])

    def plan(self) -> list[Rows]:
        """All batches of the current epoch."""
        if self._plan[0] != self.position.epoch:
            epoch = self.position.epoch
            batches = shuffled_batches(
                self.arrays, self.budget, seed=self.seed, epoch=epoch, smallest=self.world, paired=self.paired
            )
            self._plan = (epoch, batches)
        return self._plan[1]

    def __iter__(self) -> Iterator[Any]:
        for batch in self.plan()[self.position.batch :]:
            yield self.collate(self.arrays, share(batch, self.arrays, self.rank, self.world, self.paired))
