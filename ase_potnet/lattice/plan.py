"""Splitting parameter, cut-offs, images and wave vectors of every structure of a batch (host, numpy).

The splitting eta balances the two sums with a cost model; the cut-offs follow from the bounds of ``bounds``, half
the tolerance to each side. Nothing here is differentiated: a lattice sum does not depend on eta, and depends on the
cut-offs by less than the tolerance.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from ase_potnet.lattice.bounds import MixtureTail, exponential_cutoff
from ase_potnet.lattice.crystal_cutoffs import choose_cutoffs, measure_crystal
from ase_potnet.lattice.potentials.base import Decomposition
from ase_potnet.lattice.reduction import (
    covering_radius_bound,
    dual_basis,
    gram_schmidt_lengths,
    grid_products,
    group_rows,
    half_widths,
    integer_grid,
    reduce_basis,
    require_volume,
)
from ase_potnet.lattice.structures import Structures

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

# sqrt(eta) * V^(1/3) above which float32 loses the self term to cancellation (r^-6: 36-fold at 3.5), of a crystal of
# up to so many atoms; larger ones have the same sqrt(eta) at the same density
_LARGEST_FLOAT32_SPLIT, _FEW_ATOMS = 2.5, 10
_FIRST, _ALL_AXES = np.zeros(1, dtype=np.int64), np.arange(3)[None]  # of a plan for one crystal


@dataclass(frozen=True)
class Ragged:
    """Integer points (as floats) of each structure, consecutive: points (n, d), count (S,), first (S,)."""

    points: Array
    count: Integers

    @property
    def first(self) -> Integers:
        return np.cumsum(self.count) - self.count


@dataclass(frozen=True, eq=False)
class Plan:
    """How to sum over S structures that have d periodic directions and the same ``complete`` flags.

    Reduced units: lengths times ``scale`` = sqrt(eta).
    """

    index: Integers  # (S,) structures of the batch
    d: int
    axes: Integers  # (S, d) rows of the cell that are periodic
    transform: Integers  # (S, d, d) reduced basis = transform @ cell[axes]
    basis: Array  # (S, d, 3) reduced basis, reduced units
    dual: Array  # (S, d, 3) dual basis, reduced units
    scale: Array  # (S,) sqrt(eta), 1/Å
    volume: Array  # (S,) of the cell, reduced units
    covering: Array  # (S,) covering radius bound of the lattice, reduced units
    dual_covering: Array  # (S,) that of the lattice of k/2
    cutoff: Array  # (S,) real space, reduced units
    wave_cutoff: Array  # (S,) |k|/2, reduced units
    tolerance: Array  # (S,) absolute, physical units
    complete: tuple[bool, ...]  # per primitive: summed whole in real space, no Ewald split

    @cached_property
    def images(self) -> Ragged:
        """Lattice points of the real-space sum. Raises ValueError where there are too many."""
        if self.d == 0:
            return Ragged(np.zeros((len(self.index), 0)), np.ones(len(self.index), dtype=np.int64))
        return lattice_images(self.basis, self.dual, self.cutoff)

    @cached_property
    def waves(self) -> Ragged:
        """Wave vectors, one of each pair k, -k; k = 0 left out. Raises ValueError where there are too many."""
        if not self.split:
            return Ragged(np.zeros((0, self.d)), np.zeros(len(self.index), dtype=np.int64))
        return wave_vectors(self.basis, self.dual, np.zeros(len(self.index)), self.wave_cutoff)

    @property
    def split(self) -> list[int]:
        """Primitives that have a long-range part."""
        return [k for k, whole in enumerate(self.complete) if not whole]


@dataclass(frozen=True)
class Costs:
    """Cost model: time = real * (images per pair) + wave * (wave vectors) per structure. Both (S,), same unit."""

    real: Array
    wave: Array


CostModel = Callable[[Integers, int, int], Costs]  # (n_atoms (S,), split primitives, periodic directions)


def plan_sums(
    structures: Structures, decomposition: Decomposition, tolerance: float, model: CostModel, single_precision: bool
) -> tuple[Plan, ...]:
    """Plans that together cover the batch. tolerance: absolute, on every sum of a potential.

    Plans depend on the cells and not on the positions: those of the last few batches are kept, for molecular dynamics
    and displaced supercells. Raises ValueError naming cell where the periodic vectors are dependent.
    """
    cells = (structures.n_atoms.tobytes(), structures.host_cell.tobytes(), structures.pbc.tobytes())
    return _plan(*cells, decomposition, tolerance, model, single_precision)


def forget_plans() -> None:
    """Drop the plans that are kept, so that the next sums make their own."""
    _plan.cache_clear()


@lru_cache(maxsize=8)
def _plan(
    n_atoms: bytes,
    host_cell: bytes,
    pbc: bytes,
    decomposition: Decomposition,
    tolerance: float,
    model: CostModel,
    single_precision: bool,
) -> tuple[Plan, ...]:
    cells = _Cells(
        n_atoms=np.frombuffer(n_atoms, dtype=np.int64),
        host_cell=np.frombuffer(host_cell, dtype=np.float64).reshape(-1, 3, 3),
        pbc=np.frombuffer(pbc, dtype=np.bool_).reshape(-1, 3),
    )
    if len(cells.n_atoms) == 1 and cells.pbc.all():
        return (_plan_crystal(cells, decomposition, tolerance, model, single_precision),)
    return tuple(_make_plans(cells, decomposition, np.full(len(cells.n_atoms), tolerance), model, single_precision))


@dataclass(frozen=True)
class _Cells:
    """What a plan depends on."""

    n_atoms: Integers  # (B,)
    host_cell: Array  # (B, 3, 3)
    pbc: NDArray[np.bool_]  # (B, 3)


def _plan_crystal(
    cells: _Cells, decomposition: Decomposition, tolerance: float, model: CostModel, single_precision: bool
) -> Plan:
    """The plan of one crystal; see ``crystal_cutoffs``."""
    lattice = measure_crystal(cells.host_cell[0].tolist())
    n_power_laws = sum(p.alpha == 0 for p in decomposition.primitives)
    split = _best_split(model, int(cells.n_atoms[0]), max(1, n_power_laws), 3, single_precision)
    chosen = choose_cutoffs(lattice, decomposition, tolerance, split, _epsilon(single_precision))
    scale = chosen.scale
    return Plan(
        index=_FIRST,
        d=3,
        axes=_ALL_AXES,
        transform=np.array([lattice.transform], dtype=np.int64),
        basis=np.array([lattice.basis]) * scale,
        dual=np.array([lattice.dual]) / scale,
        scale=np.array([scale]),
        volume=np.array([lattice.volume * scale**3]),
        covering=np.array([lattice.covering * scale]),
        dual_covering=np.array([lattice.dual_covering / scale]),
        cutoff=np.array([chosen.cutoff]),
        wave_cutoff=np.array([chosen.wave_cutoff]),
        tolerance=np.array([tolerance]),
        complete=chosen.complete,
    )


@lru_cache(maxsize=64)
def _best_split(model: CostModel, n_atoms: int, n_split: int, d: int, single_precision: bool) -> float:
    """sqrt(eta) V^(1/d) at which both sums of a structure of so many atoms take the least time together."""
    costs = model(np.array([n_atoms]), n_split, d)
    return float(_optimal_split(costs, np.array([n_atoms]), d, single_precision)[0])


def _make_plans(
    structures: _Cells, decomposition: Decomposition, tolerance: Array, model: CostModel, single_precision: bool
) -> list[Plan]:
    plans = []
    n_periodic = structures.pbc.sum(axis=1)
    for (d,), group in group_rows(n_periodic[:, None]).items():
        index = np.array(group)
        # stable sort of the flags puts the periodic rows first
        axes = np.argsort(~structures.pbc[index], axis=1, kind="stable")[:, :d]
        rows = structures.host_cell[index[:, None], axes]
        try:
            lattices = _measure(rows)
        except ValueError as error:
            raise ValueError(_rename_structure(str(error), index)) from None
        scale, complete, farthest = _choose_split(
            structures.n_atoms[index], lattices, decomposition, tolerance[index], model, single_precision
        )
        for flags, some in group_rows(complete).items():
            members = np.array(some)
            part = lattices if len(some) == len(index) else lattices.take(members)
            plan = _draft(part, index[members], axes[members], scale[members], farthest[members], flags, tolerance)
            plans.append(_finish_plan(plan, decomposition))
    return plans


def _rename_structure(message: str, index: Integers) -> str:
    words = message.split(" ")
    place = words.index("structure") + 1
    words[place] = str(int(index[int(words[place])]))
    return " ".join(words)


@dataclass(frozen=True)
class _Lattices:
    """Reduced bases of some structures with their measures, in Å."""

    basis: Array  # (S, d, 3)
    transform: Integers  # (S, d, d)
    dual: Array  # (S, d, 3)
    volume: Array  # (S,)
    covering: Array  # (S,)
    dual_covering: Array  # (S,) of the lattice of k/2

    def take(self, some: Integers) -> _Lattices:
        return _Lattices(
            self.basis[some],
            self.transform[some],
            self.dual[some],
            self.volume[some],
            self.covering[some],
            self.dual_covering[some],
        )


def _measure(rows: Array) -> _Lattices:
    basis, transform = reduce_basis(rows)
    lengths = gram_schmidt_lengths(basis)
    volume = lengths.prod(axis=1)
    require_volume(basis, volume)
    return _Lattices(
        basis=basis,
        transform=transform,
        dual=dual_basis(basis),
        volume=volume,
        covering=covering_radius_bound(lengths),
        dual_covering=math.pi * covering_radius_bound(1 / lengths),
    )


@dataclass(frozen=True)
class Constants:
    """What a plan needs of every primitive. (n_primitives, 1) each"""

    p: Array
    alpha: Array
    norm: Array
    strength: Array  # norm times the largest weight in a potential


@lru_cache(maxsize=64)
def constants_of(decomposition: Decomposition) -> Constants:
    """Index, inverse length and prefactors of the primitives as arrays, made once for each list of potentials."""
    primitives, weights = decomposition.primitives, decomposition.weights
    norm = np.array([[primitive.norm] for primitive in primitives])
    return Constants(
        p=np.array([[primitive.p] for primitive in primitives]),
        alpha=np.array([[primitive.alpha] for primitive in primitives]),
        norm=norm,
        strength=norm * np.array(weights)[:, None],
    )


def _choose_split(
    n_atoms: Integers,
    lattices: _Lattices,
    decomposition: Decomposition,
    tolerance: Array,
    model: CostModel,
    single_precision: bool,
) -> tuple[Array, NDArray[np.bool_], Array]:
    """sqrt(eta) (S,), which primitives to sum whole in real space (S, n_primitives), and their cut-off in Å (S,)."""
    primitives, weights = decomposition.primitives, decomposition.weights
    n_structures, d = lattices.basis.shape[:2]
    if d == 0:
        return np.ones(n_structures), np.ones((n_structures, len(primitives)), dtype=bool), np.full(n_structures, 1e9)
    constants = constants_of(decomposition)
    costs = model(n_atoms, max(1, sum(p.alpha == 0 for p in primitives)), d)
    split = _optimal_split(costs, n_atoms, d, single_precision)
    length = lattices.volume ** (1 / d)
    scale = np.maximum(np.minimum(split / length, _largest_scale(constants, tolerance, single_precision)), 0.8 / length)
    factor = (constants.strength * scale ** (2 * constants.p)).max(axis=0)
    reach = np.sqrt(np.log(1 + 2 * factor / tolerance)) + 0.5  # about the reduced cut-off
    complete = np.zeros((n_structures, len(primitives)), dtype=bool)
    farthest = np.full(n_structures, 1e-9)
    for k, (primitive, weight) in enumerate(zip(primitives, weights, strict=True)):
        if primitive.alpha > 0:
            cutoff = exponential_cutoff(
                primitive.alpha, primitive.p + 0.5, weight, 0.5 * tolerance, lattices.covering, lattices.volume, d
            )
            complete[:, k] = cutoff <= 2 * reach / scale
            farthest = np.where(complete[:, k], np.maximum(farthest, cutoff), farthest)
    # images that a complete potential needs anyway are free for the others: lower eta, fewer wave vectors
    return np.minimum(scale, reach / farthest), complete, farthest


def _optimal_split(costs: Costs, n_atoms: Integers, d: int, single_precision: bool) -> Array:
    """sqrt(eta) V^(1/d) at which both sums take the least time together. (S,)"""
    split = (2 * math.pi**d * costs.real / costs.wave) ** (1 / (2 * d))
    largest = _LARGEST_FLOAT32_SPLIT * np.maximum(n_atoms / _FEW_ATOMS, 1.0) ** (1 / d) if single_precision else 30.0
    return np.minimum(np.maximum(split, 0.8), largest)


def _epsilon(single_precision: bool) -> float:
    return float(np.finfo(np.float32 if single_precision else np.float64).eps)


def _largest_scale(constants: Constants, tolerance: Array, single_precision: bool) -> Array:
    """sqrt(eta) at which rounding of the self terms, about eps eta^p, reaches a twentieth of the tolerance. (S,)"""
    eps = _epsilon(single_precision)
    power = np.maximum(2 * constants.p, 1.0)
    largest: Array = ((tolerance / (20 * 8 * eps * constants.strength)) ** (1 / power)).min(axis=0)
    return largest


def _draft(
    lattices: _Lattices,
    index: Integers,
    axes: Integers,
    scale: Array,
    farthest: Array,
    complete: tuple[int, ...],
    tolerance: Array,
) -> Plan:
    """The plan of structures with equal flags, with only the cut-offs of complete potentials."""
    n_structures, d = axes.shape
    return Plan(
        index=index,
        d=d,
        axes=axes,
        transform=lattices.transform,
        basis=lattices.basis * scale[:, None, None],
        dual=lattices.dual / scale[:, None, None],
        scale=scale,
        volume=lattices.volume * scale**d,
        covering=lattices.covering * scale,
        dual_covering=lattices.dual_covering / scale,
        cutoff=farthest * scale,
        wave_cutoff=np.zeros(n_structures),
        tolerance=tolerance[index],
        complete=tuple(bool(flag) for flag in complete),
    )


def _finish_plan(plan: Plan, decomposition: Decomposition) -> Plan:
    """With the cut-offs of the split primitives, too."""
    if not plan.split:
        return plan
    solved = mixture_tails(plan, decomposition).solve(0.5 * plan.tolerance).reshape(2, -1, len(plan.index)).max(axis=1)
    return replace(plan, cutoff=np.maximum(plan.cutoff, solved[0]), wave_cutoff=solved[1])


def prefactors(plan: Plan, decomposition: Decomposition) -> Array:
    """weight * c * eta^p of each primitive, the factor between reduced and physical units. (n_primitives, S)"""
    constants = constants_of(decomposition)
    factors: Array = constants.strength * plan.scale ** (2 * constants.p)
    return factors


def mixture_tails(plan: Plan, decomposition: Decomposition) -> MixtureTail:
    """Tails of the split primitives: first the real-space rows, then the reciprocal ones (in |k|/2)."""
    split, d = plan.split, plan.d
    constants = constants_of(decomposition)
    p, alpha = constants.p[split], constants.alpha[split]
    factor = prefactors(plan, decomposition)[split]
    shift = (0.5 * alpha / plan.scale) ** 2
    one = np.ones_like(factor)
    return MixtureTail(
        factor=np.concatenate((factor, factor * (math.pi ** (0.5 * d) / plan.volume))),
        q=np.concatenate((p, 0.5 * d - p)),
        shift=np.concatenate((0 * shift, shift)),
        covering=np.concatenate((one * plan.covering, one * plan.dual_covering)),
        volume=np.concatenate((one * plan.volume, one * (math.pi**d / plan.volume))),
        d=d,
    )


def lattice_images(basis: Array, dual: Array, cutoff: Array) -> Ragged:
    """Lattice points n for which |v + n| < cutoff is possible, v in the cell around the origin; n = 0 first.

    |v + n| is at least its projection on n, that is |n| - sum_i |b_i . n| / 2|n| for |fractional v_i| <= 1/2.
    """
    gram = basis @ basis.transpose(0, 2, 1)
    reach = (half_widths(cutoff, dual) + 0.5).astype(np.int64)

    def possible(extent: tuple[int, ...], some: list[int] | slice) -> NDArray[np.bool_]:
        along = gram[some] @ integer_grid(extent, False).T  # (s, d, n) b_i . n
        length2 = _gram_product(gram[some], extent, False)
        return length2 - 0.5 * np.abs(along).sum(axis=1) <= cutoff[some, None] * np.sqrt(length2)

    return _collect(reach, False, possible)


def wave_vectors(basis: Array, dual: Array, inner: Array, outer: Array) -> Ragged:
    """Integer wave vectors with inner < |k|/2 <= outer, one of each pair (k, -k)."""
    gram = math.pi**2 * (dual @ dual.transpose(0, 2, 1))
    reach = (half_widths(outer / math.pi, basis) + 1e-9).astype(np.int64)

    def between(extent: tuple[int, ...], some: list[int] | slice) -> NDArray[np.bool_]:
        y2 = _gram_product(gram[some], extent, True)
        chosen: NDArray[np.bool_] = y2 <= outer[some, None] ** 2
        return chosen & (y2 > inner[some, None] ** 2) if inner.any() else chosen

    return _collect(reach, True, between)


def _gram_product(gram: Array, extent: tuple[int, ...], half: bool) -> Array:
    """Squared lengths of the points of an integer grid over some lattices. gram (s, d, d) -> (s, n_points)"""
    length2: Array = gram.reshape(len(gram), -1) @ grid_products(extent, half)
    # rounding must not make the square of a tiny length negative
    return np.maximum(length2, 0.0, out=length2)


def _collect(
    reach: Integers, half: bool, test: Callable[[tuple[int, ...], list[int] | slice], NDArray[np.bool_]]
) -> Ragged:
    """Points of the integer grids that pass ``test(extent, structures) -> (s, n_points)``, structure by structure."""
    if len(reach) == 1:
        extent = tuple(reach[0].tolist())
        points = integer_grid(extent, half)[test(extent, slice(None))[0]]
        return Ragged(points, np.array([len(points)]))
    count = np.zeros(len(reach), dtype=np.int64)
    owners, pieces = [], []
    for extent, some in group_rows(reach).items():
        chosen = test(extent, some)
        count[some] = chosen.sum(axis=1)
        owners.append(np.repeat(some, count[some]))
        pieces.append(integer_grid(extent, half).take(np.nonzero(chosen)[1], axis=0))
    if len(pieces) == 1:
        return Ragged(pieces[0], count)
    order = np.argsort(np.concatenate(owners), kind="stable")
    return Ragged(np.concatenate(pieces).take(order, axis=0), count)
