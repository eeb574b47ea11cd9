"""Reduced bases of the periodic directions, and integer grids over them (host, numpy, batched)."""

from __future__ import annotations

import itertools
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

_PAIRS = {d: [(i, j) for i in range(d) for j in range(d) if i != j] for d in (1, 2, 3)}


def reduce_basis(basis: Array) -> tuple[Array, Integers]:
    """Short, nearly orthogonal basis of the same lattice.

    basis: (B, d, 3), rows are lattice vectors. Returns (reduced (B, d, 3), transform (B, d, d)) with
    reduced = transform @ basis. Repeated pairwise size reduction (Lagrange-Gauss), then one vector against the
    sums of the others (Minkowski's conditions; Nguyen and Stehlé, ACM Trans. Algorithms 5, 46 (2009)).
    Raises ValueError naming cell where the vectors are linearly dependent.
    """
    n_batch, d, _ = basis.shape
    transform = np.broadcast_to(np.eye(d, dtype=np.int64), (n_batch, d, d)).copy()
    if d == 0:
        return basis, transform
    reduced = basis
    todo = np.arange(n_batch)
    while True:
        gram = reduced[todo] @ reduced[todo].transpose(0, 2, 1)
        _require_independent(np.einsum("bii->bi", gram).min(axis=1) > 0)
        step, moved = _reduction_step(gram)
        if not moved.any():
            break
        transform[todo] = step @ transform[todo]
        todo = todo[moved]
        reduced = np.einsum("bij,bjx->bix", transform.astype(float), basis)
    gram = reduced @ reduced.transpose(0, 2, 1)
    # a Minkowski-reduced basis fills at least 1/sqrt(2) of the box of its lengths
    _require_independent(np.linalg.det(gram) > 0.01 * np.einsum("bii->bi", gram).prod(axis=1))
    return reduced, transform


def _reduction_step(gram: Array) -> tuple[Integers, NDArray[np.bool_]]:
    """One sweep over all pairs (or combinations of two vectors): (unimodular step, whether it did anything)."""
    n_batch, d, _ = gram.shape
    step = np.broadcast_to(np.eye(d, dtype=np.int64), (n_batch, d, d)).copy()
    diagonal = np.einsum("bii->bi", gram)
    moved = np.zeros(n_batch, dtype=bool)
    if d == 1 or n_batch == 0:
        return step, moved
    ratio = gram / diagonal[:, None, :]
    # a step must shorten the vector by more than rounding noise, or equal lengths would cycle for ever
    if (np.abs(ratio - np.eye(d)) > 0.5 + 1e-9).any():
        gram = gram.copy()
        for i, j in _PAIRS[d]:
            factor = gram[:, i, j] / gram[:, j, j]
            integer = np.where(np.abs(factor) > 0.5 + 1e-9, np.rint(factor), 0.0)
            if not integer.any():
                continue
            moved |= integer != 0
            step[:, i] -= integer.astype(np.int64)[:, None] * step[:, j]
            gram[:, i] -= integer[:, None] * gram[:, j]
            gram[:, :, i] -= integer[:, None] * gram[:, :, j]
        return step, moved
    if d == 3:
        # pairwise reduced: the longest vector may still get shorter by +-one +-other of the other two
        longest = diagonal.argmax(axis=1)
        rows = np.arange(n_batch)
        one, other = (longest + 1) % 3, (longest + 2) % 3
        for s, t in itertools.product((-1, 1), repeat=2):
            gain = (
                diagonal[rows, one]
                + diagonal[rows, other]
                + 2 * s * gram[rows, longest, one]
                + 2 * t * gram[rows, longest, other]
                + 2 * s * t * gram[rows, one, other]
            )
            better = (gain < -1e-9 * diagonal[rows, longest]) & ~moved
            step[rows[better], longest[better], one[better]] = s
            step[rows[better], longest[better], other[better]] = t
            moved |= better
    return step, moved


def _require_independent(good: NDArray[np.bool_]) -> None:
    if not good.all():
        raise ValueError(
            f"cell of structure {int(np.flatnonzero(~good)[0])} is singular: "
            "its periodic lattice vectors are zero or linearly dependent"
        )


def gram_schmidt_lengths(basis: Array) -> Array:
    """Lengths of the Gram-Schmidt vectors of each basis. (B, d, 3) -> (B, d); their product is the cell's volume."""
    factor = np.linalg.cholesky(basis @ basis.transpose(0, 2, 1))
    return np.einsum("bii->bi", factor)


def covering_radius_bound(lengths: Array) -> Array:
    """Upper bound of the covering radius from the Gram-Schmidt lengths (B, d) -> (B,).

    Source: L. Babai, Combinatorica 6, 1 (1986): rounding to the nearest plane ends in a box with these edges. The
    dual basis, in reverse order, has the inverse lengths.
    """
    return 0.5 * np.sqrt((lengths * lengths).sum(axis=1))


def dual_basis(basis: Array) -> Array:
    """Vectors d_j in the span of the basis with d_j . b_i = delta_ij. (B, d, 3) -> (B, d, 3)"""
    if basis.shape[1] == 3:
        return np.linalg.inv(basis).transpose(0, 2, 1)
    return np.linalg.inv(basis @ basis.transpose(0, 2, 1)) @ basis


@lru_cache(maxsize=1024)
def integer_grid(reach: tuple[int, ...], half: bool) -> Array:
    """Integer points with |n_i| <= reach_i, the origin first; with ``half`` one of each pair n, -n and no origin.

    Returns (n_points, d) as floats; shared between callers, not to be written to.
    """
    d = len(reach)
    points = np.indices([2 * r + 1 for r in reach]).reshape(d, -1).T - np.array(reach)
    middle = len(points) // 2  # of an odd number of points in lexicographic order: the origin
    chosen = points[middle + 1 :] if half else np.concatenate((points[middle:], points[:middle]))
    result = chosen.astype(np.float64)
    result.flags.writeable = False
    return result


def group_rows(rows: Integers) -> dict[tuple[int, ...], list[int]]:
    """Row numbers by equal rows. (S, d) -> {row: [numbers]}"""
    groups: dict[tuple[int, ...], list[int]] = {}
    for number, row in enumerate(rows.tolist()):
        groups.setdefault(tuple(row), []).append(number)
    return groups
