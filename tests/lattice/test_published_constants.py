"""Published Madelung constants, lattice sums and closed forms of Epstein zeta functions.

Sources
  Burrows 2020     A. Burrows, S. Cooper, E. Pahl, P. Schwerdtfeger, J. Math. Phys. 61, 123503
  Bonsall 1977     L. Bonsall, A. A. Maradudin, Phys. Rev. B 15, 1959
  Borwein 2013     J. M. Borwein, M. L. Glasser et al., Lattice Sums Then and Now, Cambridge University Press
  CRC              CRC Handbook of Chemistry and Physics, section 12, Madelung constants
  Foldy 1978       L. L. Foldy, Phys. Rev. B 17, 4889
  Forrester 1982   P. J. Forrester, M. L. Glasser, J. Phys. A 15, 911
  Glasser 2012     L. Glasser, Inorg. Chem. 51, 2420
  OEIS             A085469 (NaCl), A181152 (CsCl), A182566 (ZnS)
"""

from __future__ import annotations

import math

import mpmath as mp
import pytest
import torch

from ase_potnet.lattice import Coulomb, InversePower, LennardJones, London, epstein_zeta, pair_sums, site_sums

TOLERANCE = 1e-12
BULK, SLAB, WIRE = (True, True, True), (True, True, False), (True, False, False)


def tensor(rows) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


HALF = math.sqrt(0.5)
SC = tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])
# primitive cells of unit nearest-neighbour distance
FCC = tensor([[0, HALF, HALF], [HALF, 0, HALF], [HALF, HALF, 0]])
BCC = tensor([[-1, 1, 1], [1, -1, 1], [1, 1, -1]]) / math.sqrt(3)
HCP = tensor([[1, 0, 0], [-0.5, math.sqrt(0.75), 0], [0, 0, math.sqrt(8 / 3)]])
HEXAGONAL = tensor([[1, 0, 0], [0.5, math.sqrt(0.75), 0], [0, 0, 0]])
ONE_ATOM, TWO_ATOMS = tensor([[0, 0, 0]]), tensor([[0, 0, 0], [1 / 3, 2 / 3, 1 / 2]])

F_CUBIC = tensor([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])  # lattice constant 1

# name: cell, fractional positions, charges, nearest-neighbour distance, formula units, constant, source.
# The constant M is that of the energy per formula unit, E = -M / d with charges in units of e.
IONIC_CRYSTALS = {
    "NaCl": (F_CUBIC, [[0, 0, 0], [0.5, 0.5, 0.5]], [1, -1], 0.5, 1, "1.74756459463318219", "OEIS"),
    "CsCl": (SC, [[0, 0, 0], [0.5, 0.5, 0.5]], [1, -1], math.sqrt(0.75), 1, "1.76267477307098840", "OEIS"),
    "ZnS, sphalerite": (
        F_CUBIC,
        [[0, 0, 0], [0.25, 0.25, 0.25]],
        [1, -1],
        math.sqrt(3) / 4,
        1,
        "1.63805505338879",
        "OEIS",
    ),
    "ZnS, wurtzite (ideal)": (
        HCP,
        [[1 / 3, 2 / 3, 0], [2 / 3, 1 / 3, 1 / 2], [1 / 3, 2 / 3, 3 / 8], [2 / 3, 1 / 3, 7 / 8]],
        [1, 1, -1, -1],
        math.sqrt(3 / 8),
        2,
        "1.64132",
        "CRC",
    ),
    "CaF2, fluorite": (  # CRC: 2.51939, for E = -M |z+ z-| / d
        F_CUBIC,
        [[0, 0, 0], [0.25, 0.25, 0.25], [0.75, 0.75, 0.75]],
        [2, -1, -1],
        math.sqrt(3) / 4,
        1,
        "5.03878",
        "Glasser 2012",
    ),
    "Cu2O, cuprite": (  # CRC: 2.22124, for E = -M |z+ z-| / d
        SC,
        [
            [0, 0, 0],
            [0.5, 0.5, 0.5],
            [0.25, 0.25, 0.25],
            [0.25, 0.75, 0.75],
            [0.75, 0.25, 0.75],
            [0.75, 0.75, 0.25],
        ],
        [-2, -2, 1, 1, 1, 1],
        math.sqrt(3) / 4,
        2,
        "4.44248",
        "CRC",
    ),
}


def agree(value: float, published: str, scale: float = 1.0) -> bool:
    """Within one unit of the last published digit, and the tolerance of the sums."""
    return abs(value - float(published)) <= 10.0 ** -len(published.partition(".")[2]) + scale * TOLERANCE


@pytest.mark.parametrize("name", IONIC_CRYSTALS)
def test_madelung_constant(name):
    cell, fractional, charges, distance, formula_units, published, _ = IONIC_CRYSTALS[name]
    positions, q = tensor(fractional) @ cell, tensor(charges)
    sums = pair_sums(positions, cell, [Coulomb()], tolerance=TOLERANCE)[..., 0]
    assert agree(
        -0.5 * (q @ sums @ q).item() * distance / formula_units,
        published,
        scale=len(q) * q.abs().sum().item(),
    )

    sites = site_sums(q[:, None], positions, cell, [Coulomb()], tolerance=TOLERANCE)[:, 0, 0]
    assert agree(-0.5 * (q @ sites).item() * distance / formula_units, published, scale=len(q) * q.abs().sum().item())


@pytest.mark.parametrize("length", [2.8201, 5.64])
def test_madelung_constant_of_rock_salt_in_angstrom(length):
    """8 atoms in the cubic cell, at a real size: E = -M / d for every ion pair."""
    grid = torch.cartesian_prod(*[torch.arange(2, dtype=torch.float64)] * 3)
    q = 1 - 2 * (grid.sum(1) % 2)
    sites = site_sums(q[:, None], grid * length, 2 * length * SC, [Coulomb()], tolerance=TOLERANCE)[:, 0, 0]
    torch.testing.assert_close(sites * length, -1.7475645946331822 * q, rtol=0, atol=2 * length * TOLERANCE)


@pytest.mark.parametrize(
    ("cell", "fractional", "sixth", "twelfth"),
    [  # Burrows 2020; the first digits already in Lennard-Jones and Ingham, Proc. R. Soc. A 107 (1925) 636
        pytest.param(SC, ONE_ATOM, "8.40192397482754", "6.20214904504752", id="sc"),
        pytest.param(FCC, ONE_ATOM, "14.453921043744", "12.1318801965446", id="fcc"),
        pytest.param(BCC, ONE_ATOM, "12.253667867292", "9.1141832680754", id="bcc"),
        pytest.param(HCP, TWO_ATOMS, "14.4548972778", "12.132293769099", id="hcp"),
    ],
)
def test_lennard_jones_ingham_coefficients(cell, fractional, sixth, twelfth):
    potentials = [London(), InversePower(12), LennardJones(1.0)]
    tolerance = 2e-11  # what float64 reaches at unit distance, where the self term of r^-12 cancels
    sums = pair_sums(fractional @ cell, cell, potentials, tolerance=tolerance).sum(1)  # over j
    for site in sums:
        l6, l12, lj = site.tolist()
        assert agree(l6, sixth, scale=2 * tolerance / TOLERANCE)
        assert agree(l12, twelfth, scale=2 * tolerance / TOLERANCE)
        assert abs(lj - 4 * (float(twelfth) - float(sixth))) <= 1e-9


@pytest.mark.parametrize(
    ("cell", "fractional", "published"),
    [  # Foldy 1978: energy per charge in a neutralising background, in units of e^2 / Wigner-Seitz radius
        pytest.param(SC, ONE_ATOM, "-0.8800594421", id="sc"),
        pytest.param(BCC, ONE_ATOM, "-0.895929255682", id="bcc"),
        pytest.param(FCC, ONE_ATOM, "-0.895873615195", id="fcc"),
        pytest.param(HCP, TWO_ATOMS, "-0.89583812", id="hcp"),
    ],
)
def test_wigner_crystal(cell, fractional, published):
    """The analytic continuation below n = 3 is the neutralising background."""
    energy = pair_sums(fractional @ cell, cell, [Coulomb()], tolerance=TOLERANCE)[0, :, 0].sum().item() / 2
    volume = torch.det(cell).abs().item() / len(fractional)
    assert agree(energy * (3 * volume / (4 * math.pi)) ** (1 / 3), published)


def test_two_dimensional_wigner_crystal():
    """Bonsall 1977: E = -1.960515788 sqrt(n) for the hexagonal lattice of areal density n."""
    energy = pair_sums(ONE_ATOM, HEXAGONAL, [Coulomb()], pbc=SLAB, tolerance=TOLERANCE).item() / 2
    assert agree(energy * 0.75**0.25, "-1.960515789")


# -- closed forms ----------------------------------------------------------------------------------

EXPONENTS = [1, 2, 3, 4, 6, 7, 12]


def zeta(s) -> mp.mpf:
    return mp.zeta(s)


def beta(s) -> mp.mpf:
    """Dirichlet's beta function, sum of (-1)^k / (2k + 1)^s."""
    return (mp.zeta(s, 0.25) - mp.zeta(s, 0.75)) / mp.mpf(4) ** s if s != 1 else mp.pi / 4


def l_minus_3(s) -> mp.mpf:
    """L(chi_-3, s) = 1 - 2^-s + 4^-s - 5^-s + ..."""
    return (mp.zeta(s, mp.mpf(1) / 3) - mp.zeta(s, mp.mpf(2) / 3)) / mp.mpf(3) ** s


def eta(s) -> mp.mpf:
    """Dirichlet's eta function, the alternating zeta function."""
    return mp.altzeta(s)


def zero_displacement_sum(n: int, cell: torch.Tensor, pbc, phase=None) -> complex:
    phase = None if phase is None else tensor(phase)
    return epstein_zeta(n, torch.zeros(3, dtype=torch.float64), cell, phase=phase, pbc=pbc, tolerance=TOLERANCE).item()


@pytest.mark.parametrize("n", [n for n in EXPONENTS if n != 1])
def test_chain(n):
    """sum' 1/|m|^n = 2 zeta(n)."""
    expected = float(2 * zeta(n))
    assert abs(zero_displacement_sum(n, SC, WIRE) - expected) <= TOLERANCE
    assert abs(pair_sums(ONE_ATOM, SC, [InversePower(n)], pbc=WIRE, tolerance=TOLERANCE).item() - expected) <= TOLERANCE


@pytest.mark.parametrize("n", [n for n in EXPONENTS if n != 2])
def test_square_lattice(n):
    """sum' |m|^-n = 4 zeta(n/2) beta(n/2); Borwein 2013, section 1.3 (Lorenz, Hardy)."""
    expected = float(4 * zeta(mp.mpf(n) / 2) * beta(mp.mpf(n) / 2))
    assert abs(zero_displacement_sum(n, SC, SLAB) - expected) <= TOLERANCE
    assert abs(pair_sums(ONE_ATOM, SC, [InversePower(n)], pbc=SLAB, tolerance=TOLERANCE).item() - expected) <= TOLERANCE


@pytest.mark.parametrize("n", [n for n in EXPONENTS if n != 2])
def test_hexagonal_lattice(n):
    """sum' |m|^-n = 6 zeta(n/2) L_-3(n/2); Borwein 2013, section 1.4."""
    expected = float(6 * zeta(mp.mpf(n) / 2) * l_minus_3(mp.mpf(n) / 2))
    assert abs(zero_displacement_sum(n, HEXAGONAL, SLAB) - expected) <= TOLERANCE
    assert (
        abs(pair_sums(ONE_ATOM, HEXAGONAL, [InversePower(n)], pbc=SLAB, tolerance=TOLERANCE).item() - expected)
        <= TOLERANCE
    )


@pytest.mark.parametrize("n", EXPONENTS)
def test_alternating_chain(n):
    """sum' (-1)^m / |m|^n = -2 eta(n); at n = 1 it is -2 ln 2, the Madelung constant of a line of ions."""
    assert abs(zero_displacement_sum(n, SC, WIRE, (0.5, 0, 0)) + float(2 * eta(n))) <= TOLERANCE


@pytest.mark.parametrize("n", EXPONENTS)
def test_alternating_square_lattice(n):
    """sum' (-1)^(l+m) |(l, m)|^-n = -4 eta(n/2) beta(n/2); Borwein 2013, section 1.3."""
    expected = float(-4 * eta(mp.mpf(n) / 2) * beta(mp.mpf(n) / 2))
    assert abs(zero_displacement_sum(n, SC, SLAB, (0.5, 0.5, 0)) - expected) <= TOLERANCE


@pytest.mark.parametrize("n", EXPONENTS)
def test_half_alternating_square_lattice(n):
    """sum' (-1)^l |(l, m)|^-n = -2^(2-n/2) eta(n/2) beta(n/2); Borwein 2013, section 1.3."""
    s = mp.mpf(n) / 2
    expected = float(-(mp.mpf(2) ** (1 - s)) * 2 * eta(s) * beta(s))
    assert abs(zero_displacement_sum(n, SC, SLAB, (0.5, 0, 0)) - expected) <= TOLERANCE


def test_alternating_cubic_lattice():
    """sum' (-1)^(k+l+m) / |(k, l, m)| = -1.7475...: the potential of rock salt."""
    assert abs(zero_displacement_sum(1, SC, BULK, (0.5, 0.5, 0.5)) + 1.74756459463318219) <= TOLERANCE


def test_alternating_cubic_lattice_off_site():
    """sum (-1)^(k+l+m) / |(k, l, m) - (1, 1, 1)/6| = sqrt 3; Forrester 1982."""
    sixth = torch.full((3,), 1 / 6, dtype=torch.float64)
    value = epstein_zeta(1, sixth, SC, phase=tensor([0.5, 0.5, 0.5]), tolerance=TOLERANCE).item()
    assert abs(value - math.sqrt(3)) <= TOLERANCE


@pytest.mark.parametrize("n", [2, 3, 6])
@pytest.mark.parametrize("x", [0.125, 0.5, 0.8125])
def test_displaced_chain(n, x):
    """sum |x + m|^-n = zeta(n, x) + zeta(n, 1 - x), Hurwitz's zeta function."""
    expected = float(mp.zeta(n, x) + mp.zeta(n, 1 - x))
    value = epstein_zeta(n, tensor([x, 0, 0]), SC, pbc=WIRE, tolerance=TOLERANCE).item()
    assert abs(value - expected) <= TOLERANCE + 4e-16 * expected


# -- Hadamard's finite part at n = d: the Laurent constant plus pi^(d/2) psi(d/2) / (Gamma(d/2) V_d)


@pytest.mark.parametrize("a", [1.0, 4.2])
def test_finite_part_of_the_chain(a):
    """2 zeta(1 + 2 eps) = 1/eps + 2 gamma, and psi(1/2) = -gamma - 2 ln 2; a length a adds -2 ln a."""
    value = pair_sums(ONE_ATOM, a * SC, [Coulomb()], pbc=WIRE, tolerance=TOLERANCE).item()
    expected = (float(mp.euler) - 2 * math.log(2) - 2 * math.log(a)) / a
    assert abs(value - expected) <= TOLERANCE


@pytest.mark.parametrize("a", [1.0, 4.2])
def test_finite_part_of_the_square_lattice(a):
    """4 zeta(s) beta(s) = pi/(s - 1) + pi gamma + 4 beta'(1) + ..., psi(1) = -gamma; a adds -2 pi ln a.

    beta'(1) = pi/4 (gamma + 2 ln 2 + 3 ln pi - 4 ln Gamma(1/4)): Kronecker's limit formula.
    """
    slope = mp.pi / 4 * (mp.euler + 2 * mp.log(2) + 3 * mp.log(mp.pi) - 4 * mp.loggamma(0.25))
    expected = (4 * float(slope) - 2 * math.pi * math.log(a)) / a**2
    value = pair_sums(ONE_ATOM, a * SC, [InversePower(2)], pbc=SLAB, tolerance=TOLERANCE).item()
    assert abs(value - expected) <= TOLERANCE


@pytest.mark.parametrize("a", [1.0, 4.2])
@pytest.mark.parametrize("x", [0.125, 0.5, 0.8125])
def test_pole_does_not_touch_differences(a, x):
    """On a line of ions, S(x) - S(0) = -(psi(x) + psi(1 - x) + 2 gamma) / a whatever the finite part."""
    positions = tensor([[0, 0, 0], [x * a, 0, 0]])
    sums = pair_sums(positions, a * SC, [Coulomb()], pbc=WIRE, tolerance=TOLERANCE)[0, :, 0]
    expected = -float(mp.digamma(x) + mp.digamma(1 - x) + 2 * mp.euler) / a
    assert abs((sums[1] - sums[0]).item() - expected) <= 2 * TOLERANCE
