"""Against pymatgen's EwaldSummation and torch-pme's EwaldCalculator, both at full accuracy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from vesin import NeighborList

from ase_potnet.lattice import Coulomb, InversePower, London, pair_sums, site_sums

from .crystals import crystal, sources

TOLERANCE = 1e-12

# -- pymatgen --------------------------------------------------------------------------------------

# name: cell parameters (a, b, c, alpha, beta, gamma), sites (species with charge, fractional position)
CRYSTALS = {
    "CsCl": ((4.12, 4.12, 4.12, 90, 90, 90), [("Cs+", (0, 0, 0)), ("Cl-", (0.5, 0.5, 0.5))]),
    "rutile": (
        (4.594, 4.594, 2.959, 90, 90, 90),
        [("Ti4+", (0, 0, 0)), ("Ti4+", (0.5, 0.5, 0.5))]
        + [("O2-", x) for x in ((0.305, 0.305, 0), (0.695, 0.695, 0), (0.195, 0.805, 0.5), (0.805, 0.195, 0.5))],
    ),
    "wurtzite": (
        (3.25, 3.25, 5.207, 90, 90, 120),
        [
            ("Zn2+", (1 / 3, 2 / 3, 0)),
            ("Zn2+", (2 / 3, 1 / 3, 0.5)),
            ("O2-", (1 / 3, 2 / 3, 0.382)),
            ("O2-", (2 / 3, 1 / 3, 0.882)),
        ],
    ),
    "perovskite": (
        (3.905, 3.905, 3.905, 90, 90, 90),
        [("Sr2+", (0, 0, 0)), ("Ti4+", (0.5, 0.5, 0.5))]
        + [("O2-", x) for x in ((0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5))],
    ),
    "layers, triclinic": (
        (3.1, 4.0, 13.0, 82, 75, 104),
        [
            ("Mg2+", (0.1, 0.2, 0.05)),
            ("O2-", (0.55, 0.7, 0.11)),
            ("Li+", (0.2, 0.3, 0.6)),
            ("F-", (0.7, 0.85, 0.68)),
        ],
    ),
    "charged": ((4.4, 5.1, 6.2, 85, 95, 110), [("Na+", (0, 0.1, 0)), ("Ca2+", (0.5, 0.45, 0.6))]),
}


def ewald(name: str):
    """pymatgen's sum, converged to 18 digits, and the arguments of ours."""
    pymatgen = pytest.importorskip("pymatgen.core")
    from pymatgen.analysis.ewald import EwaldSummation

    parameters, sites = CRYSTALS[name]
    species, fractional = zip(*sites, strict=True)
    structure = pymatgen.Structure(pymatgen.Lattice.from_parameters(*parameters), species, fractional)
    charges = torch.tensor([s.specie.oxi_state for s in structure], dtype=torch.float64)
    positions = torch.tensor(structure.cart_coords, dtype=torch.float64)
    cell = torch.tensor(structure.lattice.matrix.copy(), dtype=torch.float64)
    charged = abs(float(charges.sum())) > 0
    theirs = EwaldSummation(structure, acc_factor=18.0, compute_forces=not charged)
    return theirs, EwaldSummation.CONV_FACT, charges, positions, cell


@pytest.mark.filterwarnings("ignore:Per atom energies for charged structures")
@pytest.mark.parametrize("name", CRYSTALS)
def test_pymatgen_energy(name):
    """E = e^2 / (4 pi eps0) 1/2 sum_ij q_i q_j S_ij, for a charged cell in a neutralising background."""
    theirs, unit, q, positions, cell = ewald(name)
    pairs = pair_sums(positions, cell, [Coulomb()], tolerance=TOLERANCE)[..., 0]
    assert 0.5 * unit * (q @ pairs @ q).item() == pytest.approx(theirs.total_energy, rel=1e-12, abs=1e-10)


@pytest.mark.parametrize("name", [name for name in CRYSTALS if name != "charged"])
def test_pymatgen_sites(name):
    """Energies of the sites, which add up to the total, and forces."""
    theirs, unit, q, positions, cell = ewald(name)
    potential, field = site_sums(q[:, None], positions, cell, [Coulomb()], tolerance=TOLERANCE, field=True)
    ours = 0.5 * unit * q * potential[:, 0, 0]
    np.testing.assert_allclose(ours, [theirs.get_site_energy(i) for i in range(len(q))], rtol=1e-12, atol=1e-10)
    np.testing.assert_allclose(unit * q[:, None] * field[:, 0, 0], theirs.forces, rtol=1e-10, atol=1e-9)


# -- torch-pme -------------------------------------------------------------------------------------


SMEARING = 0.7


def torch_pme(potential, q: torch.Tensor, positions: torch.Tensor, cell: torch.Tensor) -> torch.Tensor:
    """P_i = sum_j S_ij q_j, (N, C).

    torch-pme returns half of it. Its reciprocal grid runs over half the range that ``lr_wavelength`` suggests
    (frequencies from -n/2 to n/2), so that the wavelength must be pi, not 2 pi, over the largest k.
    """
    torchpme = pytest.importorskip("torchpme")
    reach = 6.4 * math.sqrt(2)  # in units of the smearing; exp(-6.4^2) = 2e-18 is left out
    neighbours = NeighborList(cutoff=reach * SMEARING, full_list=True)
    box, points = cell.detach().numpy(), positions.detach().numpy()
    i, j, shift = (
        torch.from_numpy(x.astype(np.int64)) for x in neighbours.compute(points, box, periodic=True, quantities="ijS")
    )
    distance = (positions[j] - positions[i] + shift.double() @ cell).norm(dim=1)
    wavelength = math.pi * SMEARING / reach
    calculator = torchpme.EwaldCalculator(potential, lr_wavelength=wavelength, full_neighbor_list=True).double()
    return 2 * calculator(q, cell, positions, torch.stack((i, j), 1), distance)


@pytest.mark.parametrize("seed", range(4))
def test_torch_pme_coulomb(seed):
    """Charged cells: the same neutralising background."""
    torchpme = pytest.importorskip("torchpme")
    positions, cell = crystal(seed, 6)
    q = sources(seed, 6, 3)
    theirs = torch_pme(torchpme.CoulombPotential(smearing=SMEARING), q, positions, cell)
    ours = site_sums(q, positions, cell, [Coulomb()], tolerance=TOLERANCE)[..., 0]
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-11)
    pairs = pair_sums(positions, cell, [Coulomb()], tolerance=TOLERANCE)[..., 0]
    torch.testing.assert_close(pairs @ q, theirs, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("n", [1, 2, 4, 5, 6])
@pytest.mark.parametrize("seed", range(2))
def test_torch_pme_inverse_power(seed, n):
    torchpme = pytest.importorskip("torchpme")
    positions, cell = crystal(seed, 6)
    q = sources(seed, 6, 3)
    theirs = torch_pme(torchpme.InversePowerLawPotential(exponent=n, smearing=SMEARING), q, positions, cell)
    potential = London() if n == 6 else InversePower(n)
    ours = site_sums(q, positions, cell, [potential], tolerance=TOLERANCE)[..., 0]
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("seed", range(2))
def test_torch_pme_at_the_pole(seed):
    """1/r^3: torch-pme drops k = 0; neutral sources cannot tell that from the finite part."""
    torchpme = pytest.importorskip("torchpme")
    positions, cell = crystal(seed, 6)
    q = sources(seed, 6, 3)
    q = q - q.mean(0)
    theirs = torch_pme(torchpme.InversePowerLawPotential(exponent=3, smearing=SMEARING), q, positions, cell)
    ours = site_sums(q, positions, cell, [InversePower(3)], tolerance=TOLERANCE)[..., 0]
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("exponent", [1, 6])
def test_torch_pme_gradients(exponent):
    """dE/dr, dE/dcell and dE/dq of E = sum_i q_i P_i, by torch's autograd through both."""
    torchpme = pytest.importorskip("torchpme")
    positions, cell = (x.requires_grad_() for x in crystal(1, 5))
    q = sources(1, 5, 1).requires_grad_()
    ours = site_sums(q, positions, cell, [InversePower(exponent)], tolerance=TOLERANCE)[..., 0]
    theirs = torch_pme(torchpme.InversePowerLawPotential(exponent, smearing=SMEARING), q, positions, cell)
    gradients = [torch.autograd.grad((q * p).sum(), (positions, cell, q)) for p in (ours, theirs)]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
