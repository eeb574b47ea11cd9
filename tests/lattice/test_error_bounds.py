"""The bound that pair_sums returns: proven means never exceeded, useful means close."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from ase_potnet.lattice import Coulomb, InversePower, London, Pauli, ScreenedCoulomb, pair_sums

POTENTIALS = (Coulomb(), London(), Pauli(3.0), Pauli(0.3), ScreenedCoulomb(0.5), InversePower(3))


def random_crystal(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    cell = 2 * torch.randn(3, 3, dtype=torch.float64, generator=generator) + 6 * torch.eye(3, dtype=torch.float64)
    return torch.rand(5, 3, dtype=torch.float64, generator=generator) @ cell, cell


@pytest.mark.parametrize("pbc", [(True, True, True), (True, False, True), (False, False, True), (False,) * 3])
def test_error_within_bound_within_tolerance(pbc):
    ratios = []
    for seed in range(6):
        positions, cell = random_crystal(seed)
        exact = pair_sums(positions, cell, POTENTIALS, pbc=pbc, tolerance=1e-12)
        for tolerance in (1e-3, 1e-5, 1e-7):
            sums, bound = pair_sums(positions, cell, POTENTIALS, pbc=pbc, tolerance=tolerance, return_bound=True)
            error = (sums - exact).abs().amax((0, 1))
            assert bound.shape == (len(POTENTIALS),)
            assert (error <= bound + 1e-12).all()
            assert (bound <= tolerance).all()
            ratios += (bound / error.clamp(min=1e-13)).tolist()
    assert np.median(ratios) <= 100


def test_one_bound_per_structure_of_a_batch():
    crystals = [random_crystal(seed) for seed in range(3)]
    positions, cell = (torch.stack(part) for part in zip(*crystals, strict=True))
    _, together = pair_sums(positions, cell, POTENTIALS, tolerance=1e-6, return_bound=True)
    for bound, (x, c) in zip(together, crystals, strict=True):
        _, alone = pair_sums(x, c, POTENTIALS, tolerance=1e-6, return_bound=True)
        torch.testing.assert_close(bound, alone, rtol=1e-6, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extremes_of_the_tolerance(dtype):
    """The loosest and the tightest tolerance that make sense still give bounds that hold."""
    positions, cell = random_crystal(7)
    exact = pair_sums(positions, cell, POTENTIALS, tolerance=1e-12)
    for tolerance in (1.0, 2e-5 if dtype == torch.float32 else 1e-11):
        sums, bound = pair_sums(positions.to(dtype), cell.to(dtype), POTENTIALS, tolerance=tolerance, return_bound=True)
        assert ((sums.double() - exact).abs().amax((0, 1)) <= bound.double() + 1e-12).all()


@pytest.mark.parametrize("alpha", [0.1, 0.03, 0.01, 3e-3])
def test_bounds_know_how_large_weakly_screened_sums_are(alpha):
    """The k = 0 term is 4 pi / (V alpha^2); single precision rounds it, or the tolerance is refused."""
    potential = ScreenedCoulomb(alpha)
    for seed in range(5):
        positions, cell = random_crystal(seed)
        exact = pair_sums(positions, cell, potential, tolerance=1e-7)
        sums, bound = pair_sums(positions.float(), cell.float(), potential, tolerance=0.1, return_bound=True)
        assert ((sums.double() - exact).abs().amax((0, 1)) <= bound.double()).all()
    with pytest.raises(ValueError, match="tolerance"):
        pair_sums(positions.float(), cell.float(), ScreenedCoulomb(1e-3), tolerance=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("pbc", [(True, True, True), (True, True, False)])
def test_memory_of_2000_atoms(pbc):
    """site_sums of 2000 atoms, with field and gradients, stays under 2 GiB in a process of its own."""
    program = f"""
import resource, torch
from ase_potnet.lattice import Coulomb, London, Pauli, site_sums
generator = torch.Generator().manual_seed(0)
cell = 31.7 * torch.eye(3, dtype=torch.float64)
grid = torch.cartesian_prod(*[torch.arange(13, dtype=torch.float64)] * 3)[:2000] / 13
positions = (grid @ cell + 0.2 * torch.randn(2000, 3, dtype=torch.float64, generator=generator)).requires_grad_()
sources = torch.randn(2000, 1, dtype=torch.float64, generator=generator)
potential, field = site_sums(sources, positions, cell, (Coulomb(), London(), Pauli(3.0)), pbc={pbc}, field=True)
(potential.sum() + field.sum()).backward()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 2.0
