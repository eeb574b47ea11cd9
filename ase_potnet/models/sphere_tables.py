"""Couplings of spherical harmonics and quadratures of the sphere, from sphere_tables.npz.

The libraries that they come from, e3nn and SciPy, take longer to import than everything else together.
`python -m ase_potnet.models.sphere_tables` writes the table.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

TABLE = Path(__file__).with_name("sphere_tables.npz")
L_MAX = 6  # of the harmonics that are coupled
DEGREES = (3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23)  # of the Lebedev rules
Array = NDArray[np.float64]


def coupling(l: int) -> Array:
    """Takes products of real harmonics of degree l and 1, all components, to those of degree l + 1. (3 (2l+1), 2l+3)

    Source: Wigner 3j symbols and harmonics ("component" normalisation) of e3nn.
    """
    return _table()[f"coupling_{l}"] if l < L_MAX else _make_coupling(l)


def lebedev_rule(degree: int) -> tuple[Array, Array]:
    """Points (P, 3) and weights (P,) that integrate polynomials of at least this degree over the unit sphere.

    Source: V. I. Lebedev, D. N. Laikov, Doklady Mathematics 59, 477 (1999), as in SciPy.
    """
    known = [d for d in DEGREES if d >= degree]
    if not known:
        return _make_rule(degree + 1 - degree % 2)
    rule = _table()[f"rule_{known[0]}"]
    return rule[:, :3], rule[:, 3]


@lru_cache(maxsize=1)
def _table() -> dict[str, Array]:
    with np.load(TABLE) as file:
        return dict(file)


def _make_coupling(l: int) -> Array:
    import torch
    from e3nn import o3

    direction = torch.nn.functional.normalize(torch.tensor([0.3, -0.5, 0.7], dtype=torch.float64), dim=0)
    symbols = o3.wigner_3j(l, 1, l + 1, dtype=torch.float64).reshape(-1, 2 * l + 3)  # up to a factor
    known = [o3.spherical_harmonics(k, direction, normalize=False, normalization="component") for k in (l, 1, l + 1)]
    raw = torch.outer(known[0], known[1]).reshape(-1) @ symbols
    result: Any = symbols * (known[2] @ raw) / (raw @ raw)
    return np.asarray(result)


def _make_rule(degree: int) -> tuple[Array, Array]:
    from scipy.integrate import lebedev_rule as rule

    points, weights = rule(degree)
    return np.ascontiguousarray(points.T), weights


def main() -> None:
    """Write the table."""
    couplings = {f"coupling_{l}": _make_coupling(l) for l in range(1, L_MAX)}
    rules = {f"rule_{degree}": np.column_stack(_make_rule(degree)) for degree in DEGREES}
    np.savez_compressed(TABLE, **couplings, **rules)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
