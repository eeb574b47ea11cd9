"""Sums, bounds and zeta functions against the mpmath table: within the tolerance that was asked for."""

import pytest
import torch

from ase_potnet.lattice import complete_pairs, epstein_zeta, pair_sums, site_sums

from .reference import POTENTIALS
from .table import EPSTEIN, PAIR_SUMS, build, case_id, expected, geometry

ALL = [build(potential) for potential in POTENTIALS]
TOLERANCES = [1e-4, 1e-8, 1e-12]
every_case = pytest.mark.parametrize("case", PAIR_SUMS, ids=case_id)
every_tolerance = pytest.mark.parametrize("tolerance", TOLERANCES)


def worst(error: torch.Tensor) -> dict[str, float]:
    """Largest error of each potential, readable in a failure."""
    return dict(zip(POTENTIALS, error.abs().reshape(-1, len(POTENTIALS)).amax(0).tolist(), strict=True))


def assert_within(error: torch.Tensor, tolerance: float) -> None:
    outside = {potential: e for potential, e in worst(error).items() if not e <= tolerance}
    assert not outside


@every_tolerance
@every_case
def test_pair_sums(case, tolerance):
    positions, cell, pbc = geometry(case)
    sums = pair_sums(positions, cell, ALL, pbc=pbc, tolerance=tolerance)
    reference = expected(case, POTENTIALS)
    assert_within(sums[:, 0] - reference, tolerance)
    assert_within(sums[0, :] - reference, tolerance)
    assert_within(torch.diagonal(sums).T - reference[0], tolerance)


@pytest.mark.parametrize("potential", POTENTIALS)
def test_each_potential_alone(potential):
    """Plans are made for all potentials of a call together; one alone takes another path."""
    for case in PAIR_SUMS:
        positions, cell, pbc = geometry(case)
        sums = pair_sums(positions, cell, [build(potential)], pbc=pbc, tolerance=1e-10)
        assert (sums[:, 0] - expected(case, [potential])).abs().max() <= 1e-10, case_id(case)


@every_tolerance
@every_case
def test_site_sums(case, tolerance):
    positions, cell, pbc = geometry(case)
    sources = torch.zeros(len(positions), 2, dtype=torch.float64)
    sources[0] = torch.tensor([1.0, -1.0])
    sums = site_sums(sources, positions, cell, ALL, pbc=pbc, tolerance=tolerance)
    reference = expected(case, POTENTIALS)
    assert_within(sums[:, 0] - reference, tolerance)
    assert_within(sums[:, 1] + reference, tolerance)


@every_tolerance
def test_whole_table_as_one_stack(tolerance):
    positions, cells, pbc = zip(*(geometry(case) for case in PAIR_SUMS), strict=True)
    sums = pair_sums(torch.stack(positions), torch.stack(cells), ALL, pbc=torch.tensor(pbc), tolerance=tolerance)
    reference = torch.stack([expected(case, POTENTIALS) for case in PAIR_SUMS])
    assert_within(sums[:, :, 0] - reference, tolerance)


@every_tolerance
def test_whole_table_as_one_ragged_batch(tolerance):
    """Structure b keeps 1 + b mod 4 of its four atoms."""
    geometries = [geometry(case) for case in PAIR_SUMS]
    counts = [1 + b % 4 for b in range(len(PAIR_SUMS))]
    positions = torch.cat([p[:n] for (p, _, _), n in zip(geometries, counts, strict=True)])
    cell = torch.stack([c for _, c, _ in geometries])
    pbc = torch.tensor([p for _, _, p in geometries])
    batch = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    first = torch.tensor([0, *counts]).cumsum(0)[:-1]
    reference = torch.cat([expected(case, POTENTIALS)[:n] for case, n in zip(PAIR_SUMS, counts, strict=True)])

    sums = pair_sums(positions, cell, ALL, pbc=pbc, tolerance=tolerance, batch=batch)
    i, j = complete_pairs(batch)
    assert_within(sums[j == first[batch[i]]] - reference, tolerance)

    sources = torch.zeros(len(batch), 1, dtype=torch.float64)
    sources[first] = 1.0
    sites = site_sums(sources, positions, cell, ALL, pbc=pbc, tolerance=tolerance, batch=batch)
    assert_within(sites[:, 0] - reference, tolerance)


@every_tolerance
@every_case
def test_bound_holds_and_keeps_the_tolerance(case, tolerance):
    positions, cell, pbc = geometry(case)
    sums, bound = pair_sums(positions, cell, ALL, pbc=pbc, tolerance=tolerance, return_bound=True)
    error = (sums[:, 0] - expected(case, POTENTIALS)).abs().amax(0)
    assert bound.shape == (len(ALL),)
    assert not {p: (e, b) for p, e, b in zip(POTENTIALS, error.tolist(), bound.tolist(), strict=True) if not e <= b}
    assert not {p: b for p, b in zip(POTENTIALS, bound.tolist(), strict=True) if not b <= tolerance}


@pytest.mark.parametrize("tolerance", [1e-4, 1e-8])
def test_bound_is_typically_within_a_hundred_times_the_error(tolerance):
    """The median over all sums of the table that are not exact to rounding."""
    ratios = []
    for case in PAIR_SUMS:
        positions, cell, pbc = geometry(case)
        sums, bound = pair_sums(positions, cell, ALL, pbc=pbc, tolerance=tolerance, return_bound=True)
        error = (sums[:, 0] - expected(case, POTENTIALS)).abs().amax(0)
        ratios.append((bound / error)[error > 1e-13])
    assert torch.cat(ratios).median() <= 100


@pytest.mark.parametrize("tolerance", [1e-4, 1e-10, 1e-12])
@pytest.mark.parametrize(
    "case", EPSTEIN, ids=lambda case: f"{case['n']}-{case['pbc']}-{case['displacement']}-{case['phase']}"
)
def test_epstein_zeta(case, tolerance):
    value = epstein_zeta(
        case["n"],
        torch.tensor(case["displacement"], dtype=torch.float64),
        torch.tensor(case["cell"], dtype=torch.float64),
        phase=torch.tensor(case["phase"], dtype=torch.float64),
        pbc=tuple(case["pbc"]),
        tolerance=tolerance,
    )
    assert value.dtype == torch.complex128
    assert abs(value.item() - complex(*map(float, case["value"]))) <= tolerance


def test_epstein_zeta_of_many_displacements():
    chosen = [c for c in EPSTEIN if c["n"] == 2 and all(c["pbc"]) and c["phase"] == [0.13, -0.42, 0.27]]
    displacement = torch.tensor([c["displacement"] for c in chosen], dtype=torch.float64).reshape(2, 1, 3)
    cell, phase = (torch.tensor(chosen[0][key], dtype=torch.float64) for key in ("cell", "phase"))
    values = epstein_zeta(2, displacement, cell, phase=phase)
    assert values.shape == (2, 1)
    for value, case in zip(values.flatten().tolist(), chosen, strict=True):
        assert abs(value - complex(*map(float, case["value"]))) <= 1e-10


@pytest.mark.parametrize("case", [case for case in PAIR_SUMS if all(case["pbc"])], ids=case_id)
def test_no_phase_is_the_pair_sum(case):
    positions, cell, pbc = geometry(case)
    values = epstein_zeta(3, positions, cell, pbc=pbc)
    assert (values - expected(case, ["InversePower(3)"])[:, 0]).abs().max() <= 1e-10
