"""The oracle against itself: it must not depend on its own splitting, and must meet sums known otherwise."""

import mpmath as mp
import pytest

from .reference import (
    POTENTIALS,
    TRICLINIC,
    case_values,
    cases,
    direct_sum,
    epstein_cases,
    epstein_value,
    gaussian_mixture,
    lattice_sum,
    real_space,
)
from .table import EPSTEIN, PAIR_SUMS, case_id

NEAR, ZERO = (0.9, -1.1, 0.7), (0.0, 0.0, 0.0)
BULK, SLAB, WIRE = (True, True, True), (False, True, True), (False, False, True)
DIGITS_25 = mp.mpf(10) ** -25


@pytest.mark.parametrize("potential", POTENTIALS)
def test_gaussian_mixture_is_the_potential(potential):
    """The integral over ln t, of panels of length 2."""
    r = mp.mpf("1.7")

    def integrand(u, s, b):
        decay = r**2 * mp.exp(u) + b * mp.exp(-u)
        return mp.exp(s * u - decay) if decay < 150 else mp.mpf(0)

    total = mp.fsum(
        C * mp.quad(lambda u, s=s, b=b: integrand(u, s, b), mp.linspace(-140, 6, 74), maxdegree=4)
        for C, s, b in gaussian_mixture(potential)
    )
    assert abs(total - real_space(potential, r)) < DIGITS_25


@pytest.mark.parametrize("pbc", [SLAB, WIRE])
@pytest.mark.parametrize("potential", ["Coulomb()", "InversePower(2)", "Pauli(3.0)"])
def test_two_splittings_agree_to_25_digits(potential, pbc):
    values = [lattice_sum(potential, NEAR, TRICLINIC, pbc, split=s) for s in (mp.mpf("0.8"), mp.mpf("1.4"))]
    assert abs(values[0] - values[1]) < DIGITS_25


@pytest.mark.parametrize("displacement", [ZERO, NEAR])
@pytest.mark.parametrize("potential", ["Coulomb()", "InversePower(3)"])
def test_two_splittings_agree_to_25_digits_in_bulk(potential, displacement):
    values = [lattice_sum(potential, displacement, TRICLINIC, split=s) for s in (1, mp.mpf("1.3"))]
    assert abs(values[0] - values[1]) < DIGITS_25


@pytest.mark.slow
@pytest.mark.parametrize("displacement", [ZERO, NEAR])
@pytest.mark.parametrize("pbc", [BULK, SLAB, WIRE])
@pytest.mark.parametrize("potential", POTENTIALS)
def test_two_splittings_agree_for_every_potential(potential, pbc, displacement):
    values = [lattice_sum(potential, displacement, TRICLINIC, pbc, split=s) for s in (mp.mpf("0.8"), mp.mpf("1.4"))]
    assert abs(values[0] - values[1]) < DIGITS_25


@pytest.mark.parametrize("displacement", [ZERO, NEAR])
@pytest.mark.parametrize(
    ("potential", "pbc"),
    [("Pauli(3.0)", WIRE), ("Morse(3.0, 1.6)", WIRE), ("Pauli(3.0)", SLAB), ("ScreenedCoulomb(3.0)", SLAB)],
)
def test_direct_sum_of_a_short_ranged_potential(potential, pbc, displacement):
    direct = direct_sum(potential, displacement, TRICLINIC, pbc, radius=26.0)  # exp(-3 * 26) = 1e-34
    assert abs(lattice_sum(potential, displacement, TRICLINIC, pbc) - direct) < DIGITS_25


def test_direct_sum_in_bulk():
    direct = direct_sum("Pauli(6.0)", NEAR, TRICLINIC, radius=12.0)  # exp(-6 * 12) = 5e-32
    assert abs(lattice_sum("Pauli(6.0)", NEAR, TRICLINIC) - direct) < DIGITS_25


@pytest.mark.parametrize("n", [2, 3, 6])
def test_chain_is_the_hurwitz_zeta_function(n):
    a, x = 4.0, mp.mpf("0.375")
    chain = lattice_sum(
        f"InversePower({n})", (0.0, 0.375 * a, 0.0), [[0] * 3, [0, a, 0], [0] * 3], (False, True, False)
    )
    assert abs(chain * mp.mpf(a) ** n - mp.zeta(n, x) - mp.zeta(n, 1 - x)) < DIGITS_25


def test_alternating_cubic_sum_of_forrester_and_glasser():
    """sum (-1)^(l+m+n) / |(l, m, n) - (1, 1, 1)/6| = sqrt 3; J. Phys. A 15 (1982) 911."""
    unit = [[6.0, 0, 0], [0, 6.0, 0], [0, 0, 6.0]]  # six times the lattice: (1, 1, 1)/6 is exact in binary
    value = 6 * lattice_sum("Coulomb()", (1.0, 1.0, 1.0), unit, phase=(0.5, 0.5, 0.5))
    assert abs(value - mp.sqrt(3)) < DIGITS_25


def same_24_decimals(a, b) -> bool:
    return abs(mp.mpf(a) - mp.mpf(b)) < 10 * DIGITS_25


def test_table_holds_the_cases_of_the_script():
    stored = [{key: case[key] for key in ("cell_name", "cell", "pbc", "displacements")} for case in PAIR_SUMS]
    assert stored == cases()
    assert [set(case["values"]) for case in PAIR_SUMS] == [set(POTENTIALS)] * len(PAIR_SUMS)
    wanted = epstein_cases()
    for case, other in zip(
        EPSTEIN, wanted, strict=True
    ):  # displacements are matrix products: rounded as the processor does
        assert case["displacement"] == pytest.approx(other["displacement"], rel=0, abs=1e-13)
        kept = set(case) - {"value", "displacement"}
        assert {key: case[key] for key in kept} == {key: value for key, value in other.items() if key != "displacement"}


@pytest.mark.parametrize("potential", ["Coulomb()", "InversePower(2)", "London()", "Pauli(3.0)"])
@pytest.mark.parametrize("case", [case for case in PAIR_SUMS if sum(case["pbc"]) < 2], ids=case_id)
def test_table_stems_from_the_script(case, potential):
    value = lattice_sum(potential, case["displacements"][1], case["cell"], case["pbc"])
    assert same_24_decimals(value, case["values"][potential][1])


@pytest.mark.slow
@pytest.mark.parametrize("case", PAIR_SUMS, ids=case_id)
def test_whole_table_stems_from_the_script(case):
    for potential, values in case_values(case).items():
        assert all(map(same_24_decimals, values, case["values"][potential]))


@pytest.mark.parametrize("case", EPSTEIN[-12:], ids=lambda case: f"{case['n']}-{case['displacement']}-{case['phase']}")
def test_epstein_table_stems_from_the_script(case):
    assert all(map(same_24_decimals, epstein_value(case), case["value"]))
