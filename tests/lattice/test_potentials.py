"""The parts every potential states about itself, in reduced units."""

from __future__ import annotations

import math

import pytest
import torch

from ase_potnet.lattice import Coulomb, InversePower, London, Pauli, ScreenedCoulomb
from ase_potnet.lattice.special import Radial

PRIMITIVES = (Coulomb(), InversePower(3), London(), Pauli(0.8), ScreenedCoulomb(1.3))
R = torch.linspace(0.3, 4.0, 12, dtype=torch.float64)


@pytest.mark.parametrize("potential", PRIMITIVES, ids=repr)
def test_complete_is_the_potential(potential):
    complete = potential.complete(Radial(R**2), potential.alpha)[0]
    torch.testing.assert_close(potential.norm * complete, potential.real_space(R), rtol=1e-12, atol=0)


@pytest.mark.parametrize("potential", PRIMITIVES, ids=repr)
def test_long_range_starts_at_the_self_term(potential):
    near = torch.tensor([1e-2], dtype=torch.float64)
    alpha = torch.tensor(potential.alpha, dtype=torch.float64)
    own = float(potential.self_term(alpha if potential.alpha > 0 else 0.0))
    radial = Radial(near**2)
    long_range = potential.complete(radial, alpha)[0] - potential.short_range(radial, alpha)[0]
    assert float(long_range) == pytest.approx(own, rel=1e-3)


@pytest.mark.parametrize("potential", PRIMITIVES, ids=repr)
def test_fourier_transform_of_the_long_range(potential):
    """Against the sum of the transforms of its Gaussians, (pi/t)^(3/2) exp(-k^2/4t), by quadrature in t."""
    t, weight = gauss_legendre()
    alpha = potential.alpha
    for k in (1.5, 3.0):
        mixture = t ** (potential.p - 2.5) * torch.exp(-(k * k + alpha * alpha) / (4 * t))
        expected = math.pi**1.5 * float((weight * mixture).sum())
        value = potential.fourier(torch.tensor([k * k], dtype=torch.float64), alpha)
        assert float(value) == pytest.approx(expected, rel=1e-10)


def gauss_legendre() -> tuple[torch.Tensor, torch.Tensor]:
    """Nodes and weights on (0, 1)."""
    import numpy as np

    nodes, weights = np.polynomial.legendre.leggauss(200)
    return torch.from_numpy(0.5 * (nodes + 1)), torch.from_numpy(0.5 * weights)
