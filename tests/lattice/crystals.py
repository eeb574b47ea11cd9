"""Random crystals for identities and derivatives, and the potentials they are summed with."""

from __future__ import annotations

import itertools

import numpy as np
import torch

from ase_potnet.lattice import (
    Coulomb,
    InversePower,
    LennardJones,
    London,
    Morse,
    Pauli,
    ScreenedCoulomb,
)

POTENTIALS = (
    Coulomb(),
    InversePower(2),
    InversePower(3),
    InversePower(5),
    London(),
    InversePower(12),
    Pauli(3.0),
    Pauli(0.6),
    ScreenedCoulomb(0.7),
    LennardJones(1.2),
    Morse(1.1, 1.5),
)
ALL_PBC = tuple(itertools.product((True, False), repeat=3))
BULK, SLAB, WIRE, MOLECULE = (
    (True, True, True),
    (True, True, False),
    (True, False, False),
    (False, False, False),
)


def pbc_id(pbc) -> str:
    """TTF and the like."""
    return "".join("FT"[periodic] for periodic in pbc)


def crystal(seed: int, n_atoms: int = 3, *, aspect: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """positions (n_atoms, 3), cell (3, 3) of a random triclinic crystal with neighbours no closer than 1 Å.

    The third vector is ``aspect`` times longer than the others. Either handedness.
    """
    rng = np.random.default_rng(seed)
    cell = np.diag(rng.uniform(3.6, 5.5, 3) * [1.0, 1.0, aspect]) + rng.uniform(-0.5, 0.5, (3, 3))
    cell[2] *= rng.choice([-1.0, 1.0])
    grid = np.array(list(itertools.product((0.2, 0.7), repeat=3)))
    fractional = rng.permutation(grid)[:n_atoms] + rng.uniform(-0.08, 0.08, (n_atoms, 3))
    return torch.from_numpy(fractional @ cell), torch.from_numpy(cell)


def sources(seed: int, n_atoms: int, channels: int = 2) -> torch.Tensor:
    """(n_atoms, channels) between -1 and 1."""
    return torch.from_numpy(np.random.default_rng(seed + 1000).uniform(-1, 1, (n_atoms, channels)))


def rotation(seed: int) -> torch.Tensor:
    """A random proper rotation, (3, 3), for row vectors."""
    q, r = np.linalg.qr(np.random.default_rng(seed + 2000).normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return torch.from_numpy(q * np.linalg.det(q))


def unimodular(seed: int, steps: int = 4) -> torch.Tensor:
    """An integer matrix of determinant +-1 from elementary row operations, (3, 3)."""
    rng = np.random.default_rng(seed + 3000)
    matrix = np.eye(3)[rng.permutation(3)]
    for _ in range(steps):
        i, j = rng.permutation(3)[:2]
        matrix[i] += rng.integers(-2, 3) * matrix[j]
    return torch.from_numpy(matrix)


def lattice_points(matrix: torch.Tensor) -> torch.Tensor:
    """The |det| integer vectors that lie in the supercell ``matrix @ cell``, (|det|, 3)."""
    reach = int(matrix.abs().sum(0).max())
    span = torch.arange(-reach, reach + 1, dtype=torch.float64)
    points = torch.cartesian_prod(span, span, span)
    inside = points @ torch.linalg.inv(matrix)
    return points[((inside > -1e-9) & (inside < 1 - 1e-9)).all(1)]
