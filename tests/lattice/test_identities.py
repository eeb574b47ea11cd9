"""What must hold between sums, whatever their values: units, frames, bases, supercells, limits."""

from __future__ import annotations

import itertools
import math
import sys
from unittest.mock import Mock

import pytest
import torch
from ase.build import bulk, molecule
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ase_potnet.lattice import (
    Coulomb,
    InversePower,
    LennardJones,
    London,
    Morse,
    Pauli,
    ScreenedCoulomb,
    complete_pairs,
    pair_sums,
    site_sums,
)

from .crystals import (
    ALL_PBC,
    BULK,
    MOLECULE,
    POTENTIALS,
    SLAB,
    WIRE,
    crystal,
    lattice_points,
    pbc_id,
    rotation,
    sources,
    unimodular,
)

TOLERANCE = 1e-10
SPECIFIC = {d: math.pi ** (d / 2) / math.gamma(d / 2) for d in (1, 2, 3)}  # residue of the sum at n = d, times V_d

deterministic = settings(derandomize=True, deadline=None, database=None, max_examples=12)
seeds = st.integers(0, 10**6)
n_atoms = st.integers(1, 5)
pbcs = st.sampled_from(ALL_PBC)


def sums(positions, cell, pbc=BULK, potentials=POTENTIALS, **keywords) -> torch.Tensor:
    return pair_sums(positions, cell, potentials, pbc=pbc, **{"tolerance": TOLERANCE} | keywords)


def assert_same(a: torch.Tensor, b: torch.Tensor, n_errors: float = 2) -> None:
    """Both sides within TOLERANCE of the truth; ``n_errors`` counts how many tolerances may add up."""
    torch.testing.assert_close(a, b, rtol=1e-13, atol=n_errors * TOLERANCE)


def periodic_volume(cell, pbc) -> torch.Tensor:
    lattice = cell[list(pbc)]
    return (lattice @ lattice.T).det().sqrt()


# -- units and frames ------------------------------------------------------------------------------


@deterministic
@given(seed=seeds, pbc=pbcs, scale=st.floats(0.7, 3.0))
@example(seed=0, pbc=BULK, scale=0.5)
def test_unit_of_length(seed, pbc, scale):
    """S(c v, c L) = c^-n S(v, L), and a logarithm at the pole n = d."""
    positions, cell = crystal(seed)
    powers = [1, 2, 3, 6, 12]
    potentials = [InversePower(n) for n in powers]
    small, large = (sums(positions * c, cell * c, pbc, potentials) for c in (1.0, scale))
    d = sum(pbc)
    for k, n in enumerate(powers):
        expected = small[..., k]
        if n == d:
            expected = expected - 2 * math.log(scale) * SPECIFIC[d] / periodic_volume(cell, pbc)
        assert_same(large[..., k] * scale**n, expected, 1 + scale**n)


@deterministic
@given(seed=seeds, pbc=pbcs, scale=st.floats(0.7, 3.0))
def test_unit_of_length_of_exponentials(seed, pbc, scale):
    """alpha is an inverse length."""
    positions, cell = crystal(seed)
    small = sums(positions, cell, pbc, [Pauli(1.5), ScreenedCoulomb(1.2), LennardJones(1.1), Morse(1.3, 1.4)])
    potentials = [
        Pauli(1.5 / scale),
        ScreenedCoulomb(1.2 / scale),
        LennardJones(1.1 * scale),
        Morse(1.3 / scale, 1.4 * scale),
    ]
    large = sums(positions * scale, cell * scale, pbc, potentials)
    assert_same(large * torch.tensor([1, scale, 1, 1], dtype=torch.float64), small, 1 + max(scale, 1))


@deterministic
@given(seed=seeds, pbc=pbcs, n=n_atoms)
def test_rotation_and_translation(seed, pbc, n):
    positions, cell = crystal(seed, n)
    turn = rotation(seed)
    moved = positions @ turn + torch.tensor([1.3, -7.1, 2.9])
    assert_same(sums(moved, cell @ turn, pbc), sums(positions, cell, pbc))


@deterministic
@given(seed=seeds, pbc=pbcs)
def test_mirror_image(seed, pbc):
    """A left-handed cell from a right-handed one and the other way round."""
    positions, cell = crystal(seed)
    mirror = torch.tensor([1.0, 1.0, -1.0])
    assert_same(sums(positions * mirror, cell * mirror, pbc), sums(positions, cell, pbc))


@deterministic
@given(seed=seeds, pbc=pbcs, order=st.permutations(range(3)))
def test_order_of_axes(seed, pbc, order):
    """TTF, TFT and FTT are one geometry in three orders."""
    positions, cell = crystal(seed)
    assert_same(sums(positions, cell[order], [pbc[i] for i in order]), sums(positions, cell, pbc))


# -- the same crystal written differently ----------------------------------------------------------


@deterministic
@given(seed=seeds, pbc=pbcs, shifts=st.lists(st.tuples(*[st.integers(-4, 4)] * 3), min_size=3, max_size=3))
def test_atoms_in_other_cells(seed, pbc, shifts):
    positions, cell = crystal(seed)
    shift = torch.tensor(shifts, dtype=torch.float64) * torch.tensor(pbc)
    assert_same(sums(positions + shift @ cell, cell, pbc), sums(positions, cell, pbc))


@deterministic
@given(seed=seeds, n=n_atoms)
def test_basis_of_the_lattice(seed, n):
    positions, cell = crystal(seed, n)
    assert_same(sums(positions, unimodular(seed) @ cell), sums(positions, cell))


@deterministic
@given(seed=seeds, pbc=st.sampled_from([p for p in ALL_PBC if sum(p) == 2]), shear=st.integers(-9, 9))
def test_basis_of_a_slab(seed, pbc, shear):
    positions, cell = crystal(seed)
    first, second = [i for i in range(3) if pbc[i]]
    skewed = cell.clone()
    skewed[first] += shear * cell[second]
    assert_same(sums(positions, skewed, pbc), sums(positions, cell, pbc))


@deterministic
@given(seed=seeds, pbc=pbcs.filter(lambda p: not all(p)))
def test_vectors_of_free_directions_do_not_matter(seed, pbc):
    """Zero, short, long or inside the periodic span: never used."""
    positions, cell = crystal(seed)
    expected = sums(positions, cell, pbc)
    periodic = torch.tensor(pbc)[:, None]
    for vector in (
        0.0,
        torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)),
        cell[:1],
    ):
        assert_same(sums(positions, torch.where(periodic, cell, vector), pbc), expected)


@deterministic
@given(seed=seeds, pbc=pbcs, order=st.permutations(range(4)))
def test_order_of_atoms(seed, pbc, order):
    positions, cell = crystal(seed, 4)
    q = sources(seed, 4)
    assert_same(sums(positions[order], cell, pbc), sums(positions, cell, pbc)[order][:, order])
    sites = [site_sums(q[o], positions[o], cell, POTENTIALS, pbc=pbc, tolerance=TOLERANCE) for o in (order, range(4))]
    assert_same(sites[0], sites[1][order])


@deterministic
@given(seed=seeds, pbc=pbcs, n=n_atoms)
def test_symmetry(seed, pbc, n):
    """S_ij = S_ji, and all self images are alike."""
    result = sums(*crystal(seed, n), pbc)
    assert_same(result, result.transpose(0, 1))
    diagonal = torch.diagonal(result).T
    assert_same(diagonal, diagonal[:1].expand_as(diagonal))


@deterministic
@given(seed=seeds, pbc=pbcs, repeats=st.tuples(*[st.integers(1, 2)] * 3))
def test_diagonal_supercell(seed, pbc, repeats):
    matrix = torch.diag(torch.tensor(repeats, dtype=torch.float64).where(torch.tensor(pbc), 1.0))
    check_supercell(seed, pbc, matrix)


@deterministic
@given(seed=seeds)
@example(seed=7)
def test_skewed_supercell(seed):
    matrix = (
        unimodular(seed, 2) @ torch.diag(torch.tensor([1.0, 2.0, 2.0], dtype=torch.float64)) @ unimodular(seed + 1, 2)
    )
    check_supercell(seed, BULK, matrix)


def check_supercell(seed: int, pbc, matrix: torch.Tensor) -> None:
    """Summed over the images of an atom in the supercell, every sum is that of the primitive cell.

    At the pole n = d too: each finite part has the same ln(unit of length) / V_d, so that they add up.
    """
    positions, cell = crystal(seed, 2)
    points = lattice_points(matrix)
    images = (positions[None] + (points @ cell)[:, None]).reshape(-1, 3)  # image-major
    supercell = sums(images, matrix @ cell, pbc)
    n_images = len(points)
    folded = supercell.reshape(n_images, 2, n_images, 2, -1).sum(2)
    assert_same(folded, sums(positions, cell, pbc).expand_as(folded), n_images + 1)

    q = sources(seed, 2)
    sites = site_sums(q.repeat(n_images, 1), images, matrix @ cell, POTENTIALS, pbc=pbc, tolerance=TOLERANCE)
    primitive = site_sums(q, positions, cell, POTENTIALS, pbc=pbc, tolerance=TOLERANCE)
    assert_same(sites, primitive.repeat(n_images, 1, 1))


# -- between potentials ----------------------------------------------------------------------------


@deterministic
@given(seed=seeds, pbc=pbcs, sigma=st.floats(0.8, 1.4))
def test_lennard_jones_is_two_inverse_powers(seed, pbc, sigma):
    lj, r12, r6 = sums(*crystal(seed), pbc, [LennardJones(sigma), InversePower(12), London()]).unbind(-1)
    assert_same(lj, 4 * (sigma**12 * r12 - sigma**6 * r6), 1 + 4 * (sigma**12 + sigma**6))


@deterministic
@given(seed=seeds, pbc=pbcs, alpha=st.floats(0.5, 2.0), r_e=st.floats(0.8, 2.0))
def test_morse_is_two_exponentials(seed, pbc, alpha, r_e):
    morse, steep, gentle = sums(*crystal(seed), pbc, [Morse(alpha, r_e), Pauli(2 * alpha), Pauli(alpha)]).unbind(-1)
    a, b = math.exp(2 * alpha * r_e), 2 * math.exp(alpha * r_e)
    assert_same(morse, a * steep - b * gentle, 1 + a + b)


@deterministic
@given(seed=seeds, pbc=pbcs)
def test_other_names_of_inverse_powers(seed, pbc):
    result = sums(*crystal(seed), pbc, [Coulomb(), InversePower(1), London(), InversePower(6)])
    assert_same(result[..., 0], result[..., 1])
    assert_same(result[..., 2], result[..., 3])


@deterministic
@given(seed=seeds, pbc=pbcs, alpha=st.floats(1.5, 3.0))
def test_pauli_is_a_derivative_of_screened_coulomb(seed, pbc, alpha):
    """exp(-a r) = -d/da exp(-a r)/r. The difference formula is off by h^4/30 sum r^4 exp(-a r) < 1e-6."""
    h = 0.01
    steps = [ScreenedCoulomb(alpha + k * h) for k in (-2, -1, 1, 2)]
    *yukawa, pauli = sums(*crystal(seed), pbc, [*steps, Pauli(alpha)], tolerance=1e-12).unbind(-1)
    slope = (yukawa[0] - 8 * yukawa[1] + 8 * yukawa[2] - yukawa[3]) / (12 * h)
    torch.testing.assert_close(-slope, pauli, rtol=0, atol=1e-6)


@deterministic
@given(seed=seeds, pbc=pbcs)
def test_order_of_potentials(seed, pbc):
    positions, cell = crystal(seed)
    assert_same(sums(positions, cell, pbc, POTENTIALS[::-1]), sums(positions, cell, pbc).flip(-1))


# -- limits ----------------------------------------------------------------------------------------

VACUUM = 60.0
SHORT_RANGED = [Pauli(1.0), Pauli(3.0), ScreenedCoulomb(1.0), Morse(1.5, 1.5)]  # exp(-VACUUM) = 1e-26


@pytest.mark.parametrize("pbc", ALL_PBC, ids=pbc_id)
def test_vacuum_makes_slab_wire_and_molecule(pbc):
    """In bulk with wide gaps, short-ranged sums are those of the partly periodic system."""
    positions, cell = crystal(3, 4)
    gaps = cell + VACUUM * torch.diag((~torch.tensor(pbc)).double()) * cell.diagonal().sign()
    periodic = torch.tensor(pbc)[:, None]
    bulk = sums(positions, torch.where(periodic, cell, gaps), BULK, SHORT_RANGED)
    assert_same(bulk, sums(positions, cell, pbc, SHORT_RANGED))


@pytest.mark.parametrize("n", [6, 12])
def test_vacuum_makes_a_slab_of_inverse_powers(n):
    """A layer at distance z adds 2 pi z^(2-n) / ((n - 2) A): 1e-11 at n = 6, z = 400, A = 15."""
    positions, cell = crystal(5, 3)
    vacuum = cell.clone()
    vacuum[2] = torch.tensor([0.0, 0.0, 400.0])
    slab = sums(positions, cell, SLAB, [InversePower(n)])
    assert_same(sums(positions, vacuum, BULK, [InversePower(n)]), slab)


@deterministic
@given(seed=seeds, n=n_atoms)
def test_molecule_is_the_plain_function(seed, n):
    positions, cell = crystal(seed, n)
    distance = torch.cdist(positions, positions, compute_mode="donot_use_mm_for_euclid_dist")
    off_diagonal = ~torch.eye(n, dtype=torch.bool)
    for pbc in (MOLECULE, False):
        result = sums(positions, cell, pbc)
        assert (torch.diagonal(result) == 0).all()
        for k, potential in enumerate(POTENTIALS):
            torch.testing.assert_close(
                result[..., k][off_diagonal],
                potential.real_space(distance[off_diagonal]),
                rtol=1e-13,
                atol=1e-14,
            )


@deterministic
@given(seed=seeds, pbc=pbcs)
def test_short_ranged_sums_are_plain_sums(seed, pbc):
    """Up to image 9 in every direction: exp(-3 * 25) is left out."""
    positions, cell = crystal(seed)
    potentials = [Pauli(3.0), ScreenedCoulomb(3.0), Morse(3.0, 1.2), InversePower(24)]
    ranges = [torch.arange(-9.0, 10.0) if periodic else torch.zeros(1) for periodic in pbc]
    images = torch.cartesian_prod(*ranges).double() @ cell
    r = (positions[:, None, None] - positions[None, :, None] + images).norm(dim=-1)
    plain = [torch.where(r > 0, p.real_space(r.clamp(min=0.1)), 0.0).sum(-1) for p in potentials]
    assert_same(sums(positions, cell, pbc, potentials), torch.stack(plain, -1), 1.1)


# -- batches, site sums, fields, precision ---------------------------------------------------------


@deterministic
@given(seed=seeds, counts=st.lists(n_atoms, min_size=1, max_size=5), pbc=pbcs)
def test_ragged_batch_is_one_by_one(seed, counts, pbc):
    """Structures of different size and periodicity, among them one long cell."""
    crystals = [crystal(seed + b, n, aspect=4.0 if b == 1 else 1.0) for b, n in enumerate(counts)]
    pbcs_of_batch = [pbc if b % 2 == 0 else BULK for b in range(len(counts))]
    positions, cell = torch.cat([p for p, _ in crystals]), torch.stack([c for _, c in crystals])
    batch = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    q = sources(seed, len(batch))
    keywords = {"pbc": torch.tensor(pbcs_of_batch), "batch": batch, "tolerance": TOLERANCE}

    pairs = pair_sums(positions, cell, POTENTIALS, **keywords)
    single = [sums(p, c, f) for (p, c), f in zip(crystals, pbcs_of_batch, strict=True)]
    assert_same(pairs, torch.cat([s.flatten(0, 1) for s in single]))

    i, j = complete_pairs(batch)
    grid = [torch.cartesian_prod(torch.arange(n), torch.arange(n)) for n in counts]
    start = torch.tensor([0, *counts]).cumsum(0)
    assert torch.equal(
        torch.stack((i, j), 1), torch.cat([g.reshape(-1, 2) + s for g, s in zip(grid, start, strict=False)])
    )

    sites, field = site_sums(q, positions, cell, POTENTIALS, field=True, **keywords)
    for b, (p, c) in enumerate(crystals):
        own = batch == b
        alone = site_sums(q[own], p, c, POTENTIALS, pbc=pbcs_of_batch[b], tolerance=TOLERANCE, field=True)
        assert_same(sites[own], alone[0])
        assert_same(field[own], alone[1], 20)


@deterministic
@given(seed=seeds, n=n_atoms, pbc=pbcs, n_structures=st.integers(1, 4))
def test_stack_is_one_by_one(seed, n, pbc, n_structures):
    crystals = [crystal(seed + b, n) for b in range(n_structures)]
    positions, cell = (torch.stack(x) for x in zip(*crystals, strict=True))
    result, bound = pair_sums(positions, cell, POTENTIALS, pbc=pbc, tolerance=TOLERANCE, return_bound=True)
    assert result.shape == (n_structures, n, n, len(POTENTIALS))
    assert bound.shape == (n_structures, len(POTENTIALS))
    assert_same(result, torch.stack([sums(p, c, pbc) for p, c in crystals]))

    q = torch.stack([sources(seed + b, n) for b in range(n_structures)])
    sites = site_sums(q, positions, cell, POTENTIALS, pbc=pbc, tolerance=TOLERANCE)
    assert sites.shape == (n_structures, n, 2, len(POTENTIALS))
    assert_same(sites, torch.einsum("bijk,bjc->bick", result, q), 1 + n)


@deterministic
@given(seed=seeds, n=st.integers(1, 8), pbc=pbcs, channels=st.integers(1, 3))
def test_site_sums_are_pair_sums_times_sources(seed, n, pbc, channels):
    positions, cell = crystal(seed, n)
    q = sources(seed, n, channels)
    expected = torch.einsum("ijk,jc->ick", sums(positions, cell, pbc), q)
    assert_same(site_sums(q, positions, cell, POTENTIALS, pbc=pbc, tolerance=TOLERANCE), expected, 1 + n)


@pytest.mark.parametrize(("repeats", "channels"), [((2, 2, 2), 3), ((5, 2, 2), 3), ((5, 2, 2), 12)])
@pytest.mark.parametrize("pbc", ALL_PBC, ids=pbc_id)
def test_site_sums_of_many_atoms(pbc, repeats, channels):
    """64 atoms: the matrix of their pairs in chunks. 160 atoms: neighbours and structure factors, no matrix.

    Neighbours of few channels are summed pair by pair, of many through products of matrices.
    """
    positions, cell = crystal(11, 8)
    repeated = torch.diag(torch.tensor(repeats, dtype=torch.float64))
    positions = (positions[None] + (lattice_points(repeated) @ cell)[:, None]).reshape(-1, 3)
    cell, n = repeated @ cell, len(positions)
    q = sources(11, n, channels)
    expected = torch.einsum("ijk,jc->ick", sums(positions, cell, pbc, tolerance=1e-12), q)
    result = site_sums(q, positions, cell, POTENTIALS, pbc=pbc, tolerance=TOLERANCE)
    assert_same(result, expected, 1 + n * 1e-2)


@pytest.mark.parametrize("pbc", ALL_PBC, ids=pbc_id)
def test_channels_together_and_apart(pbc):
    """12 channels go through products of matrices, single ones pair by pair. Structures of different size."""
    crystals = [crystal(3, 4, aspect=4.0), crystal(4, 7), crystal(5, 2)]
    positions, cell = torch.cat([p for p, _ in crystals]), torch.stack([c for _, c in crystals])
    batch = torch.repeat_interleave(torch.arange(3), torch.tensor([len(p) for p, _ in crystals]))
    keywords = {"pbc": pbc, "batch": batch, "field": True, "tolerance": TOLERANCE}
    q = sources(1, len(batch), 12)
    together = site_sums(q, positions, cell, POTENTIALS, **keywords)
    apart = [site_sums(one, positions, cell, POTENTIALS, **keywords) for one in q.split(1, dim=1)]
    for k in (0, 1):
        assert_same(together[k], torch.cat([one[k] for one in apart], dim=1), 20)


@pytest.mark.parametrize("precision", ["highest", "medium"])
@pytest.mark.parametrize("height", [0.0, 3000.0])
def test_neighbours_are_found_in_sufficient_precision(height, precision):
    """Of a slab with an atom far above it, and where products of matrices are allowed to be coarse."""
    positions, cell = crystal(6, 5)
    positions[4, 2] += height
    q = sources(6, 5)
    q = q - q.mean(0)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        sites, _ = site_sums(q, positions, cell, POTENTIALS, pbc=SLAB, tolerance=TOLERANCE, field=True)
    finally:
        torch.set_float32_matmul_precision(before)
    expected = torch.einsum("ijk,jc->ick", sums(positions, cell, SLAB), q)
    assert_same(sites, expected, 6)


def test_matrix_of_pairs_only_for_few_atoms_or_many_channels(monkeypatch):
    """Its reciprocal part costs N^2: at one image of every pair it had been taken beyond its limit."""
    atoms = bulk("NaCl", "rocksalt", 5.64, cubic=True).repeat((3, 3, 3))  # 216 atoms
    x, c = torch.tensor(atoms.positions), torch.tensor(atoms.cell.array)
    q = torch.tensor(atoms.numbers - 14.0)[:, None]
    module = sys.modules["ase_potnet.lattice.site_sums"]  # the name in the package is the function's
    matrix = Mock(wraps=module.small_crystal_sums)
    monkeypatch.setattr(module, "small_crystal_sums", matrix)
    found = site_sums(q, x, c, Coulomb(), tolerance=1e-6)
    assert not matrix.called
    site_sums(q[:8], x[:8], c, Coulomb(), tolerance=1e-6)
    assert matrix.called
    torch.testing.assert_close(found[0, 0, 0], q[1, 0] * 2 * 1.747564594633 / 5.64, rtol=1e-6, atol=0)


@pytest.mark.parametrize("field", [False, True])
def test_sums_that_need_no_wave_vectors(field):
    """Steep potentials at a loose tolerance in single precision leave the reciprocal sum empty."""
    for crystal_of_argon, tolerance in ((bulk("Ar", "fcc", 5.26, cubic=True).repeat(4), 1e-5), (molecule("H2"), 1e-2)):
        x, c = torch.tensor(crystal_of_argon.positions), torch.tensor(crystal_of_argon.cell.array)
        c = c if c.any() else 10 * torch.eye(3, dtype=torch.float64)
        q = torch.ones(len(x), 1, dtype=torch.float64)
        exact = site_sums(q, x, c, [London()], field=field)
        found = site_sums(q.float(), x.float(), c.float(), [London()], tolerance=tolerance, field=field)
        for one, other in zip(found if field else (found,), exact if field else (exact,), strict=True):
            torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=10 * tolerance)


@pytest.mark.parametrize("pbc", ALL_PBC, ids=pbc_id)
def test_field_is_minus_the_gradient_at_the_site(pbc):
    """A probe without source feels the field of the others: fourth-order differences of its own potential."""
    positions, cell = crystal(2, 4)
    q = sources(2, 4)
    q[0] = 0.0

    def at(shift) -> torch.Tensor:
        moved = torch.cat((positions[:1] + shift, positions[1:]))
        return site_sums(q, moved, cell, POTENTIALS, pbc=pbc, tolerance=1e-12)[0]

    potential, field = site_sums(q, positions, cell, POTENTIALS, pbc=pbc, tolerance=1e-12, field=True)
    assert field.shape == (4, 2, len(POTENTIALS), 3)
    assert_same(potential[0], at(torch.zeros(3)))
    h = 2e-3
    for axis in range(3):
        step = h * torch.eye(3, dtype=torch.float64)[axis]
        slope = (at(-2 * step) - 8 * at(-step) + 8 * at(step) - at(2 * step)) / (12 * h)
        torch.testing.assert_close(field[0, ..., axis], -slope, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("pbc", ALL_PBC, ids=pbc_id)
def test_field_of_pair_gradients(pbc):
    """F_i = -sum_j q_j dS_ij/dr_i, the self images exert none."""
    positions, cell = crystal(4, 3)
    q = sources(4, 3, 1)
    positions.requires_grad_()
    potentials = [Coulomb(), LennardJones(1.2), Pauli(0.6)]
    potential = sums(positions, cell, pbc, potentials, tolerance=1e-12).transpose(1, 2) @ q  # (N, K, 1)
    _, field = site_sums(q, positions, cell, potentials, pbc=pbc, tolerance=1e-12, field=True)
    for i, k in itertools.product(range(3), range(3)):
        (gradient,) = torch.autograd.grad(potential[i, k, 0], positions, retain_graph=True)
        torch.testing.assert_close(field[i, 0, k], -gradient[i], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("pbc", [BULK, SLAB, WIRE, MOLECULE], ids=pbc_id)
@pytest.mark.parametrize("seed", range(4))
def test_float32_is_close_to_float64(seed, pbc):
    """Same rounded input, so that only the arithmetic differs."""
    positions, cell = (x.float() for x in crystal(seed, 4))
    q = sources(seed, 4).float()
    single = pair_sums(positions, cell, POTENTIALS, pbc=pbc, tolerance=1e-4)
    assert single.dtype == torch.float32
    double = sums(positions.double(), cell.double(), pbc)
    assert ((single - double).abs() <= 1e-4 + 2e-6 * double.abs()).all()

    sites = site_sums(q, positions, cell, POTENTIALS, pbc=pbc, tolerance=1e-4)
    assert sites.dtype == torch.float32
    exact = torch.einsum("ijk,jc->ick", double, q.double())
    assert ((sites - exact).abs() <= 1e-4 + 2e-6 * exact.abs()).all()


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
@pytest.mark.parametrize("seed", range(2))
def test_long_cell(seed, order):
    """c/a = 30 is 30 times a short cell with 30 atoms: compare with the short cell."""
    positions, cell = crystal(seed, 1)
    long = cell.clone()
    long[2] *= 30
    images = positions + torch.arange(30.0)[:, None] * cell[2]
    folded = sums(images, long[list(order)])[0].sum(0)
    assert_same(folded, sums(positions, cell)[0, 0], 31)


def test_empty_sources_give_nothing():
    positions, cell = crystal(0, 3)
    potential, field = site_sums(torch.zeros(3, 2, dtype=torch.float64), positions, cell, POTENTIALS, field=True)
    assert (potential == 0).all()
    assert (field == 0).all()


def test_inputs_stay_untouched():
    positions, cell = crystal(0, 3)
    q = sources(0, 3)
    copies = [x.clone() for x in (positions, cell, q)]
    pair_sums(positions, cell, POTENTIALS)
    site_sums(q, positions, cell, POTENTIALS, field=True)
    assert all(torch.equal(x, y) for x, y in zip((positions, cell, q), copies, strict=True))
