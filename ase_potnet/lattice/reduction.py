"""Reduced bases of the periodic directions, and integer grids over them (host, numpy, batched)."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

_MOST_POINTS = 10**7  # of the grid in which images or wave vectors are looked for
_NEXT, _AFTER = [1, 2, 0], [2, 0, 1]  # cyclic successors of 0, 1, 2
# signs (1, s, t) of the sums of all three vectors, and those of their products 01, 02, 12
_SIGNS = np.array([[1, s, t] for s in (-1, 1) for t in (-1, 1)])
_SIGN_PRODUCTS = np.array([[s, t, s * t] for _, s, t in _SIGNS.tolist()], dtype=np.float64).T


def reduce_basis(basis: Array) -> tuple[Array, Integers]:
    """Short, nearly orthogonal basis of the same lattice.

    basis: (B, d, 3), rows are lattice vectors. Returns (reduced (B, d, 3), transform (B, d, d)) with
    reduced = transform @ basis, Minkowski-reduced: no vector gets shorter by subtracting multiples of another
    (Lagrange-Gauss) or both others (Nguyen and Stehlé, ACM Trans. Algorithms 5, 46 (2009)). The best such step of
    every basis is taken until none is left.
    Raises ValueError naming cell where a vector is zero (see also ``require_volume``).
    """
    n_batch, d, _ = basis.shape
    transform = np.zeros((n_batch, d, d), dtype=np.int64)
    transform[:] = np.eye(d, dtype=np.int64)
    if d == 0:
        return basis, transform
    reduced = basis.copy()
    todo, part = np.arange(n_batch), basis
    while True:
        gram = part @ part.transpose(0, 2, 1)
        diagonal = gram.reshape(-1, d * d)[:, :: d + 1]
        _require_independent(diagonal.min(axis=1) > 1e-20 * diagonal.max(axis=1), todo)
        step, moved = _reduction_step(gram, diagonal)
        if not moved.any():
            break
        todo = todo[moved]
        transform[todo] = step[moved] @ transform[todo]
        part = transform[todo].astype(np.float64) @ basis[todo]
        reduced[todo] = part
    return reduced, transform


def require_volume(reduced: Array, volume: Array) -> None:
    """Raises ValueError naming cell where vectors are dependent. reduced (B, d, 3), volume (B,)"""
    # a Minkowski-reduced basis fills at least 1/sqrt(2) of the box of its lengths
    box2 = (reduced * reduced).sum(axis=2).prod(axis=1)
    _require_independent(volume * volume > 0.01 * box2, np.arange(len(volume)))


def _reduction_step(gram: Array, diagonal: Array) -> tuple[Integers, NDArray[np.bool_]]:
    """The best step of every basis (B, d, d), and whether there was one (B,). gram (B, d, d), diagonal (B, d)"""
    d = gram.shape[1]
    # b_i - turns b_j for all i and j, and how much shorter that is than b_i, relative to b_i
    turns = np.rint(gram / diagonal[:, None, :])
    turns.reshape(-1, d * d)[:, :: d + 1] = 0.0
    gain = (turns * (2 * gram - turns * diagonal[:, None, :]) / diagonal[:, :, None]).reshape(-1, d * d)
    if d == 3:
        products = gram.reshape(-1, 9)[:, [1, 2, 5]]
        length2 = diagonal.sum(axis=1, keepdims=True) + 2 * (products @ _SIGN_PRODUCTS)
        gain = np.concatenate((gain, 1 - length2 / diagonal.max(axis=1, keepdims=True)), axis=1)
    # a step must shorten the vector by more than rounding noise, or equal lengths would cycle for ever
    moved = gain.max(axis=1) > 1e-9
    step = np.zeros(gram.shape, dtype=np.int64)
    if moved.any():
        step[:] = np.eye(d, dtype=np.int64)
        rows, best = np.flatnonzero(moved), gain.argmax(axis=1)[moved]
        pair = best < d * d
        some, i, j = rows[pair], best[pair] // d, best[pair] % d
        step[some, i, j] = -turns[some, i, j].astype(np.int64)
        if d == 3:
            some = rows[~pair]
            step[some, diagonal[some].argmax(axis=1)] = _SIGNS[best[~pair] - 9]
    return step, moved


def _require_independent(good: NDArray[np.bool_], structures: Integers) -> None:
    if not good.all():
        raise ValueError(
            f"cell of structure {int(structures[~good][0])} is singular: "
            "its periodic lattice vectors are zero or linearly dependent"
        )


def cofactors(basis: Array) -> Array:
    """b_1 x b_2, b_2 x b_0, b_0 x b_1 of each basis. (B, 3, 3) -> (B, 3, 3)"""
    one, other = basis[:, _NEXT], basis[:, _AFTER]
    return one[:, :, _NEXT] * other[:, :, _AFTER] - one[:, :, _AFTER] * other[:, :, _NEXT]


def gram_schmidt_lengths(basis: Array) -> Array:
    """Lengths of the Gram-Schmidt vectors of each basis. (B, d, 3) -> (B, d); their product is the volume.

    Raises ValueError naming cell where the vectors are linearly dependent.
    """
    gram = basis @ basis.transpose(0, 2, 1)
    d = basis.shape[1]
    # squared volumes of the first 0, 1, ..., d vectors
    minors = np.ones((len(basis), d + 1))
    if d > 0:
        minors[:, 1] = gram[:, 0, 0]
    if d > 1:
        minors[:, 2] = gram[:, 0, 0] * gram[:, 1, 1] - gram[:, 0, 1] ** 2
    if d > 2:
        minors[:, 3] = (basis[:, 2] * cofactors(basis)[:, 2]).sum(axis=1) ** 2
    _require_independent(minors.min(axis=1) > 0, np.arange(len(basis)))
    return np.sqrt(minors[:, 1:] / minors[:, :-1])


def covering_radius_bound(lengths: Array) -> Array:
    """Upper bound of the covering radius from the Gram-Schmidt lengths (B, d) -> (B,).

    Source: L. Babai, Combinatorica 6, 1 (1986): rounding to the nearest plane ends in a box with these edges. The
    dual basis, in reverse order, has the inverse lengths.
    """
    return 0.5 * np.sqrt((lengths * lengths).sum(axis=1))


def dual_basis(basis: Array) -> Array:
    """Vectors d_j in the span of the basis with d_j . b_i = delta_ij. (B, d, 3) -> (B, d, 3)"""
    if basis.shape[1] == 3:
        across = cofactors(basis)
        return across / (basis[:, :1] * across[:, :1]).sum(axis=2, keepdims=True)
    return np.linalg.inv(basis @ basis.transpose(0, 2, 1)) @ basis


def half_widths(radius: Array, dual: Array) -> Array:
    """Half-widths of balls in fractional coordinates. radius (B,), dual basis (B, d, 3) -> (B, d)"""
    widths: Array = radius[:, None] * np.sqrt((dual * dual).sum(axis=2))
    return widths


@lru_cache(maxsize=1024)
def integer_grid(reach: tuple[int, ...], half: bool) -> Array:
    """Integer points with |n_i| <= reach_i, the origin first; with ``half`` one of each pair n, -n and no origin.

    Returns (n_points, d) as floats; shared between callers, not to be written to. Raises ValueError naming cell where
    there are too many.
    """
    d = len(reach)
    if math.prod(2.0 * r + 1.0 for r in reach) > _MOST_POINTS:
        raise ValueError(
            "cell has a vector so much shorter than the others that its sums would take more than "
            f"{_MOST_POINTS:.0e} terms; check the vectors and their unit (Å)"
        )
    points = np.indices([2 * r + 1 for r in reach]).reshape(d, -1).T - np.array(reach)
    middle = len(points) // 2  # of an odd number of points in lexicographic order: the origin
    chosen = points[middle + 1 :] if half else np.concatenate((points[middle:], points[:middle]))
    result = chosen.astype(np.float64)
    result.flags.writeable = False
    return result


@lru_cache(maxsize=1024)
def grid_products(reach: tuple[int, ...], half: bool) -> Array:
    """n_i n_j of the points of ``integer_grid``, so that |n L|^2 is a product with the Gram matrix. (d d, n_points)"""
    grid = integer_grid(reach, half)
    result = (grid[:, :, None] * grid[:, None, :]).reshape(len(grid), len(reach) ** 2).T.copy()
    result.flags.writeable = False
    return result


def group_rows(rows: Integers | NDArray[np.bool_]) -> dict[tuple[int, ...], list[int]]:
    """Row numbers by equal rows. (S, d) -> {row: [numbers]}"""
    groups: dict[tuple[int, ...], list[int]] = {}
    for number, row in enumerate(rows.tolist()):
        groups.setdefault(tuple(row), []).append(number)
    return groups
