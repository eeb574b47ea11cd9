"""Splitting parameter and cut-offs of one crystal in plain numbers.

For a single cell the calls of numpy take several times longer than the arithmetic. The rules are those of ``plan`` for
batches, the bounds those of ``bounds``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from ase_potnet.lattice.bounds import NUMBERS, exponential_cutoff, gaussian_cutoff
from ase_potnet.lattice.potentials.base import Decomposition

Rows = list[list[float]]

_SIGNS = [(1.0, s, t) for s in (-1.0, 1.0) for t in (-1.0, 1.0)]
_CYCLIC = ((1, 2), (2, 0), (0, 1))


@dataclass(frozen=True)
class CrystalLattice:
    """Reduced basis of one crystal with its measures, in Å; see ``reduction``.

    basis = transform · cell and dual, rows (3, 3); volume; covering radius bounds of the lattice and of that of k/2
    """

    transform: Rows
    basis: Rows
    dual: Rows
    volume: float
    covering: float
    dual_covering: float


@dataclass(frozen=True)
class CrystalCutoffs:
    """scale: sqrt(eta) in 1/Å; cut-offs of r and |k|/2 in reduced units; complete: primitives without Ewald split."""

    scale: float
    cutoff: float
    wave_cutoff: float
    complete: tuple[bool, ...]


def measure_crystal(cell: Rows) -> CrystalLattice:
    """Minkowski-reduced basis and measures. Raises ValueError naming cell where the vectors are dependent."""
    basis, transform, gram = _reduce(cell)
    (g00, g01, _), (_, g11, _), (_, _, g22) = gram
    across = [_cross(basis[i], basis[j]) for i, j in _CYCLIC]
    signed_volume = _dot(basis[0], across[0])
    volume, area2 = abs(signed_volume), g00 * g11 - g01 * g01
    # a Minkowski-reduced basis fills at least 1/sqrt(2) of the box of its lengths
    if not (volume * volume > 0.01 * g00 * g11 * g22 and area2 > 0):
        raise _singular()
    squares = (g00, area2 / g00, volume * volume / area2)  # of the Gram-Schmidt lengths
    return CrystalLattice(
        transform=transform,
        basis=basis,
        dual=[[x / signed_volume for x in row] for row in across],
        volume=volume,
        covering=0.5 * math.sqrt(sum(squares)),
        dual_covering=0.5 * math.pi * math.sqrt(sum(1 / square for square in squares)),
    )


def choose_cutoffs(
    lattice: CrystalLattice, decomposition: Decomposition, tolerance: float, split: float, eps: float
) -> CrystalCutoffs:
    """Cut-offs with a proven tail of at most half the tolerance on each side.

    split: sqrt(eta) V^(1/3) that the cost model asks for; eps: machine epsilon of the sums.
    """
    terms, volume = _terms(decomposition), lattice.volume
    length = volume ** (1 / 3)
    # rounding of the self terms, about eps eta^p, reaches a twentieth of the tolerance
    largest = min((tolerance / (20 * 8 * eps * strength)) ** (1 / max(2 * p, 1.0)) for p, _, strength, _ in terms)
    scale = max(min(split / length, largest), 0.8 / length)
    factor = max(strength * scale ** (2 * p) for p, _, strength, _ in terms)
    reach = math.sqrt(math.log(1 + 2 * factor / tolerance)) + 0.5  # about the reduced cut-off
    complete, farthest = [], 1e-9
    for p, alpha, _, weight in terms:
        own = math.inf
        if alpha > 0:
            own = exponential_cutoff(alpha, p + 0.5, weight, 0.5 * tolerance, lattice.covering, volume, 3, NUMBERS)
        complete.append(own <= 2 * reach / scale)
        farthest = max(farthest, own) if complete[-1] else farthest
    scale = min(scale, reach / farthest)
    cutoff, wave_cutoff, reduced = farthest * scale, 0.0, volume * scale**3
    for (p, alpha, strength, _), whole in zip(terms, complete, strict=True):
        if not whole:
            factor, half = strength * scale ** (2 * p), 0.5 * tolerance
            near = gaussian_cutoff(factor, p, 0.0, lattice.covering * scale, reduced, 3, half, NUMBERS)
            factor, shift = factor * math.pi**1.5 / reduced, (0.5 * alpha / scale) ** 2
            far = gaussian_cutoff(
                factor, 1.5 - p, shift, lattice.dual_covering / scale, math.pi**3 / reduced, 3, half, NUMBERS
            )
            cutoff, wave_cutoff = max(cutoff, near), max(wave_cutoff, far)
    return CrystalCutoffs(scale, cutoff, wave_cutoff, tuple(complete))


@lru_cache(maxsize=64)
def _terms(decomposition: Decomposition) -> tuple[tuple[float, float, float, float], ...]:
    """p, alpha, strength (weight times norm) and weight of every primitive."""
    pairs = zip(decomposition.primitives, decomposition.weights, strict=True)
    return tuple((primitive.p, primitive.alpha, weight * primitive.norm, weight) for primitive, weight in pairs)


def _reduce(cell: Rows) -> tuple[Rows, Rows, Rows]:
    """Reduced basis, its transform from the cell, and its Gram matrix; the steps of ``reduction.reduce_basis``."""
    transform = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    basis = cell
    while True:
        gram = [[_dot(a, b) for b in basis] for a in basis]
        lengths = (gram[0][0], gram[1][1], gram[2][2])
        if not min(lengths) > 1e-20 * max(lengths):
            raise _singular()
        step = _best_step(gram, lengths)
        if step is None:
            return basis, transform, gram
        place, weights = step
        transform[place] = _combine(weights, transform)
        basis = [_combine(row, cell) for row in transform]


def _best_step(gram: Rows, lengths: tuple[float, float, float]) -> tuple[int, tuple[float, ...]] | None:
    """The vector to replace and the weights of the sum that replaces it, or None where nothing gets shorter."""
    best, step = 1e-9, None  # more than rounding, or equal lengths would cycle for ever
    for i in range(3):
        for j in range(3):
            turns = float(round(gram[i][j] / lengths[j])) if i != j else 0.0
            gain = turns * (2 * gram[i][j] - turns * lengths[j]) / lengths[i]
            if gain > best:
                best, step = gain, (i, tuple(1.0 if k == i else -turns if k == j else 0.0 for k in range(3)))
    longest = max(lengths)
    for signs in _SIGNS:
        _, s, t = signs
        length2 = sum(lengths) + 2 * (s * gram[0][1] + t * gram[0][2] + s * t * gram[1][2])
        if 1 - length2 / longest > best:
            best, step = 1 - length2 / longest, (lengths.index(longest), signs)
    return step


def _dot(a: list[float], b: list[float]) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _cross(a: list[float], b: list[float]) -> list[float]:
    return [a[i] * b[j] - a[j] * b[i] for i, j in _CYCLIC]


def _combine(weights: tuple[float, ...] | list[float], rows: Rows) -> list[float]:
    return [weights[0] * a + weights[1] * b + weights[2] * c for a, b, c in zip(*rows, strict=True)]


def _singular() -> ValueError:
    return ValueError("cell of structure 0 is singular: its periodic lattice vectors are zero or linearly dependent")
