"""Building structures from parsed numbers, and refusing those that are no structure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from numpy.typing import ArrayLike, NDArray

TOO_CLOSE = 0.1  # Å; two atoms nearer than this are an error of the entry
FLATTEST_CELL = 1e-6  # volume over the product of the lengths; a cell below this has no volume
ROWS = 64  # atoms whose distances to all atoms are held in memory at once

_NUMBERS = {**{symbol: number for symbol, number in atomic_numbers.items() if number > 0}, "D": 1, "T": 1}
_ISOTOPES = {"D": 2.01410177811, "T": 3.01604928199}  # u
_SYMBOL = re.compile(r"([A-Z][a-z]?)(?:\d*\.?\d*[+-])?")


def atomic_number(symbol: str) -> int:
    """Atomic number of a symbol such as Fe, Fe3+ or D. Raises ValueError for anything else."""
    if (number := _NUMBERS.get(symbol)) is not None:
        return number
    match = _SYMBOL.fullmatch(symbol)
    if match is None or match[1] not in _NUMBERS:
        raise ValueError(f"unknown element {symbol!r}")
    return _NUMBERS[match[1]]


def crystal(
    symbols: Iterable[str],
    cell: ArrayLike,
    *,
    scaled: Sequence[Any] | NDArray[np.float64] | None = None,
    positions: Sequence[Any] | NDArray[np.float64] | None = None,
    pbc: bool | Sequence[bool] = True,
) -> Atoms:
    """Atoms from element symbols, a cell (3, 3) in Å and scaled coordinates or positions in Å, (n_atoms, 3)."""
    symbols = list(symbols)
    numbers = [atomic_number(symbol) for symbol in symbols]
    coordinates = np.asarray(positions if scaled is None else scaled, dtype=np.float64)
    if coordinates.shape != (len(numbers), 3):
        raise ValueError(f"{len(numbers)} elements but coordinates of shape {coordinates.shape}")
    vectors = np.asarray(cell, dtype=np.float64)
    if vectors.shape != (3, 3):
        raise ValueError(f"cell of shape {vectors.shape}, wanted (3, 3)")
    if scaled is not None:
        coordinates = coordinates @ vectors
    atoms = Atoms(numbers=numbers, positions=coordinates, cell=vectors, pbc=pbc)
    set_isotopes(atoms, symbols)
    return atoms


def set_isotopes(atoms: Atoms, symbols: Sequence[str]) -> None:
    """Masses of deuterium and tritium where D and T stand among the symbols of atoms without masses of their own."""
    heavy = {place: _ISOTOPES[symbol[:1]] for place, symbol in enumerate(symbols) if _is_isotope(symbol)}
    if heavy and not atoms.has("masses"):
        masses = atoms.get_masses()
        masses[list(heavy)] = list(heavy.values())
        atoms.set_masses(masses)


def _is_isotope(symbol: str) -> bool:
    """D, T, D+, D1+, ..., and no other element such as Dy."""
    return symbol[:1] in _ISOTOPES and not symbol[1:2].isalpha()


def check(atoms: Atoms) -> None:
    """Raise ValueError if the structure cannot be right.

    No atoms, an unknown element, numbers that are not finite, a periodic cell without volume, or two atoms
    (periodic images of other atoms included) within 0.1 Å.
    """
    if len(atoms) == 0:
        raise ValueError("no atoms")
    if atoms.numbers.min() < 1 or atoms.numbers.max() > 118:
        raise ValueError(f"atomic numbers from {atoms.numbers.min()} to {atoms.numbers.max()}, wanted 1 to 118")
    if not math.isfinite(atoms.positions.sum()):  # NaN and infinity survive the sum
        raise ValueError("positions are not finite")
    cell = atoms.cell.array[atoms.pbc]  # (n_periodic, 3)
    _check_distances(atoms.positions, cell, _inverse(cell))


def _inverse(cell: NDArray[np.float64]) -> NDArray[np.float64]:
    """The matrix (3, n_periodic) that turns positions into scaled coordinates along the cell's rows."""
    if not math.isfinite(cell.sum()):
        raise ValueError("cell is not finite")
    if len(cell) == 0:
        return np.zeros((3, 0))
    lengths = [math.hypot(*row) for row in cell.tolist()]
    if len(cell) == 3:
        a, b, c = cell.tolist()
        duals = _cross(b, c), _cross(c, a), _cross(a, b)
        volume = sum(x * y for x, y in zip(a, duals[0], strict=True))
        flat = abs(volume) <= FLATTEST_CELL * math.prod(lengths)
    else:
        flat = np.linalg.det(cell @ cell.T) <= (FLATTEST_CELL * math.prod(lengths)) ** 2
    if flat:
        raise ValueError("the periodic cell has no volume")
    return np.asarray(np.array(duals).T / volume if len(cell) == 3 else np.linalg.pinv(cell), dtype=np.float64)


def _cross(u: Sequence[float], v: Sequence[float]) -> tuple[float, float, float]:
    """The cross product; numpy's takes twenty times longer for one pair."""
    return u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]


def _check_distances(positions: NDArray[np.float64], cell: NDArray[np.float64], inverse: NDArray[np.float64]) -> None:
    """Raise ValueError if two atoms are within TOO_CLOSE, images along the cell's rows included.

    Rounding finds the nearest image of so near a pair, though not of every pair.
    """
    for start in range(0, len(positions), ROWS):
        vectors = positions[start : start + ROWS, None] - positions[None, start:]  # (rows, later atoms, 3)
        if len(cell):
            vectors -= np.rint(vectors @ inverse) @ cell
        near = np.einsum("ijx,ijx->ij", vectors, vectors) < TOO_CLOSE**2
        if np.count_nonzero(near) > len(near):  # more than each atom with itself
            i, j = np.argwhere(np.triu(near, 1))[0]
            distance = math.hypot(*vectors[i, j])
            raise ValueError(f"atoms {start + i} and {start + j} are {distance:.3f} Å apart")
