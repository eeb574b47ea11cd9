"""Plans of one crystal in plain numbers against those of batches, and their promised tails."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ase_potnet.lattice import Coulomb, London, Morse, Pauli, ScreenedCoulomb
from ase_potnet.lattice.pair_sums import pair_costs
from ase_potnet.lattice.plan import Plan, lattice_images, mixture_tails, plan_sums, wave_vectors
from ase_potnet.lattice.potentials.base import Potential, decompose
from ase_potnet.lattice.reduction import dual_basis
from ase_potnet.lattice.site_sums import _SiteCosts
from ase_potnet.lattice.structures import read_structures

POTENTIALS = {
    "all": (Coulomb(), London(), Pauli(3.0)),
    "soft": (Morse(0.3, 2.0), ScreenedCoulomb(0.2)),
    "steep": (Pauli(20.0),),
}
SKEW = np.array([[1, 3, 0], [0, 1, 0], [2, -5, 1]])


def plans(cells: np.ndarray, potentials: tuple[Potential, ...], tolerance: float, dtype: torch.dtype) -> list[Plan]:
    """Plans for 7 atoms in each of the cells, made together."""
    structures = read_structures(
        torch.zeros(len(cells), 7, 3, dtype=dtype), torch.tensor(cells, dtype=dtype), True, None
    )
    single = dtype == torch.float32
    return list(plan_sums(structures, decompose(potentials), tolerance, pair_costs, single))


@pytest.mark.parametrize("kind", POTENTIALS)
@pytest.mark.parametrize(("tolerance", "dtype"), [(1e-3, torch.float32), (1e-4, torch.float64), (1e-11, torch.float64)])
def test_one_crystal_as_in_a_batch(kind: str, tolerance: float, dtype: torch.dtype) -> None:
    generator = np.random.default_rng(5)
    for number in range(20):
        cell = 5 * np.eye(3) + generator.normal(size=(3, 3))
        cell = SKEW @ cell if number % 2 else cell
        (one,) = plans(cell[None], POTENTIALS[kind], tolerance, dtype)
        (two,) = plans(np.stack((cell, cell)), POTENTIALS[kind], tolerance, dtype)
        assert one.complete == two.complete
        assert (one.transform[0] == two.transform[0]).all()
        for name in ("basis", "scale", "volume", "covering", "dual_covering"):
            np.testing.assert_allclose(getattr(one, name)[0], getattr(two, name)[0], rtol=1e-12, atol=1e-12)
        for name in ("cutoff", "wave_cutoff"):  # found by iteration
            np.testing.assert_allclose(getattr(one, name)[0], getattr(two, name)[0], rtol=2e-3)


@pytest.mark.parametrize("kind", POTENTIALS)
def test_tails_and_points_of_one_crystal(kind: str) -> None:
    generator = np.random.default_rng(6)
    decomposition = decompose(POTENTIALS[kind])
    for number in range(20):
        cell = np.exp(generator.normal(size=3))[:, None] * (4 * np.eye(3) + generator.normal(size=(3, 3)))
        (plan,) = plans(cell[None], POTENTIALS[kind], 10.0 ** -(4 + number % 8), torch.float64)
        if plan.split:
            cutoffs = np.repeat([plan.cutoff, plan.wave_cutoff], len(plan.split), axis=0)
            assert (mixture_tails(plan, decomposition).bound(cutoffs) <= 0.5 * plan.tolerance).all()
        # the points of one lattice are those of two equal ones
        basis, cutoff, outer = (np.repeat(x, 2, axis=0) for x in (plan.basis, plan.cutoff, plan.wave_cutoff))
        images = lattice_images(basis, dual_basis(basis), cutoff)
        waves = wave_vectors(basis, dual_basis(basis), np.zeros(2), outer)
        assert (images.points == np.concatenate([plan.images.points] * 2)).all()
        assert (waves.points == np.concatenate([plan.waves.points] * 2)).all()


def test_cut_offs_of_large_crystals_in_float32() -> None:
    """They follow the density, as in float64, not the size of the cell: else times grow as N^2."""
    n, reach = 960, {}
    for dtype in (torch.float32, torch.float64):
        cell = 2.8 * n ** (1 / 3) * torch.eye(3, dtype=dtype)
        structures = read_structures(torch.zeros(n, 3, dtype=dtype), cell, True, None)
        single = dtype == torch.float32
        (plan,) = plan_sums(structures, decompose(POTENTIALS["all"]), 1e-5, _SiteCosts(4, False), single)
        reach[dtype] = float(plan.cutoff[0] / plan.scale[0])  # Å
    assert reach[torch.float32] < 1.2 * reach[torch.float64]
