"""Frames: the requested statistics, consistent cells and positions, seeds."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms
from ase.neighborlist import neighbor_list

from ase_potnet.training.labelling import Kind, Recipe, Supercell, Surface, load_recipe
from ase_potnet.training.labelling.perturb import (
    applies,
    apply,
    draw_deformation,
    draw_kind,
    frame_seed,
    slab_layers,
    too_close,
)
from ase_potnet.training.labelling.supercells import diagonal_repeats, near_cubic_matrix

MANY = 10_000


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


@pytest.fixture
def quartz_like() -> Atoms:
    """A triclinic crystal of four atoms of two elements, positions outside the cell."""
    cell = [[4.1, 0.0, 0.3], [-1.7, 4.6, 0.0], [0.4, 0.9, 6.2]]
    scaled = [[0.0, 0.0, 0.0], [0.45, 0.52, 0.48], [1.2, 0.7, 0.3], [0.7, -0.2, 0.75]]
    return Atoms("CuNiCu2", scaled_positions=scaled, cell=cell, pbc=True)


# Strain and rattle


def test_strain_has_the_requested_statistics(rng: np.random.Generator, quartz_like: Atoms) -> None:
    kind = Kind(volume=(0.9, 1.15), shear=0.02)
    deformations = np.array([draw_deformation(kind, quartz_like, rng) for _ in range(4000)])
    np.testing.assert_allclose(deformations, deformations.swapaxes(1, 2), atol=1e-15)
    volumes = np.linalg.det(deformations)
    assert 0.9 <= volumes.min() < 0.902
    assert 1.148 < volumes.max() <= 1.15
    assert volumes.mean() == pytest.approx(1.025, abs=0.005)
    off_diagonal = deformations[:, [0, 0, 1], [1, 2, 2]] / volumes[:, None] ** (1 / 3)
    assert off_diagonal.std() == pytest.approx(0.02, rel=0.03)
    assert abs(off_diagonal.mean()) < 0.001


def test_strain_moves_atoms_with_the_cell(rng: np.random.Generator, quartz_like: Atoms) -> None:
    frame = apply(Kind(volume=(0.8, 0.8), shear=0.05), quartz_like, MANY, rng)
    assert frame.get_volume() == pytest.approx(0.8 * quartz_like.get_volume(), rel=1e-12)
    before, after = (atoms.get_scaled_positions(wrap=False) for atoms in (quartz_like, frame))
    np.testing.assert_allclose(after, before, atol=1e-12)
    assert np.abs(frame.cell.cellpar() - quartz_like.cell.cellpar()).max() > 0.1


def test_isotropic_strain_keeps_the_shape(rng: np.random.Generator, quartz_like: Atoms) -> None:
    frame = apply(Kind(volume=(1.3, 1.3)), quartz_like, MANY, rng)
    np.testing.assert_allclose(frame.cell.array, 1.3 ** (1 / 3) * quartz_like.cell.array, rtol=1e-12)


def test_slab_is_strained_in_its_plane_only(rng: np.random.Generator) -> None:
    slab = fcc111("Cu", (2, 2, 3), vacuum=6.0)
    slab.rotate(30, "x", rotate_cell=True)
    assert slab.pbc.tolist() == [True, True, False]
    frame = apply(Kind(volume=(0.9, 0.9), shear=0.05), slab, MANY, rng)
    areas = [np.cross(*atoms.cell.array[:2]) for atoms in (slab, frame)]
    np.testing.assert_allclose(areas[1], 0.9 * areas[0], atol=1e-10)
    normal = areas[0] / np.linalg.norm(areas[0])
    np.testing.assert_allclose(frame.positions @ normal, slab.positions @ normal, atol=1e-12)


def test_rattle_has_the_requested_statistics(rng: np.random.Generator) -> None:
    crystal = bulk("Cu", cubic=True).repeat(5)  # 500 atoms
    crystal.set_constraint(FixAtoms([0, 1]))
    moves = [apply(Kind(sigma=(0.05, 0.15)), crystal, MANY, rng).positions - crystal.positions for _ in range(300)]
    sigmas = np.array([move.std() for move in moves])
    assert 0.045 < sigmas.min() < 0.06
    assert 0.14 < sigmas.max() < 0.16
    assert sigmas.mean() == pytest.approx(0.1, abs=0.006)
    fixed = apply(Kind(sigma=(0.1, 0.1)), crystal, MANY, rng).positions - crystal.positions
    assert fixed.std() == pytest.approx(0.1, rel=0.06)
    assert np.abs(fixed[:2]).min() > 0  # constraints do not hold back
    assert abs((fixed**4).mean() / (fixed**2).mean() ** 2 - 3) < 0.6  # normal


def test_rattle_comes_on_top_of_strain(rng: np.random.Generator, quartz_like: Atoms) -> None:
    kind = Kind(volume=(1.1, 1.1), sigma=(0.02, 0.02))
    frame = apply(kind, quartz_like, MANY, rng)
    strained = 1.1 ** (1 / 3) * quartz_like.positions
    assert 0 < np.abs(frame.positions - strained).max() < 0.1


# Supercells


@pytest.mark.parametrize("shape", ["near-cubic", "diagonal"])
def test_supercell_keeps_the_crystal(shape: str, rng: np.random.Generator, quartz_like: Atoms) -> None:
    kind = Kind(supercell=Supercell(atoms=(8, 30), shape=shape))
    per_atom = LennardJones(sigma=1.6, rc=5.0)
    quartz_like.calc = per_atom
    energy, stress = quartz_like.get_potential_energy() / 4, quartz_like.get_stress()
    sizes = set()
    for _ in range(12):
        frame = apply(kind, quartz_like, MANY, rng)
        n_cells = len(frame) // 4
        sizes.add(len(frame))
        assert Counter(frame.symbols) == Counter({"Cu": 3 * n_cells, "Ni": n_cells})
        assert frame.get_volume() == pytest.approx(n_cells * quartz_like.get_volume(), rel=1e-9)
        integers = frame.cell.array @ np.linalg.inv(quartz_like.cell.array)
        np.testing.assert_allclose(integers, np.rint(integers), atol=1e-9)
        frame.calc = LennardJones(sigma=1.6, rc=5.0)
        assert frame.get_potential_energy() / len(frame) == pytest.approx(energy, rel=1e-9)
        np.testing.assert_allclose(frame.get_stress(), stress, rtol=1e-8, atol=1e-12)
    assert min(sizes) >= 8
    assert max(sizes) <= 30
    assert len(sizes) >= 2


def test_limit_of_atoms_holds_for_supercells(rng: np.random.Generator, quartz_like: Atoms) -> None:
    kind = Kind(supercell=Supercell(atoms=(8, 100)))
    assert max(len(apply(kind, quartz_like, 17, rng)) for _ in range(10)) <= 16
    assert not applies(kind, quartz_like, 7)


@pytest.mark.parametrize(("count", "shape"), [(4, 1.0), (32, 1.0), (27, 0.95), (17, 0.85)])
def test_near_cubic_supercells_of_fcc(count: int, shape: float, rng: np.random.Generator) -> None:
    """4 and 32 primitive cells make exact cubes. shape: least ratio of the shortest vector to the cube's side."""
    cell = bulk("Cu", a=3.6).cell.array
    supercell = near_cubic_matrix(cell, count, rng) @ cell
    assert abs(np.linalg.det(supercell)) == pytest.approx(count * 3.6**3 / 4, rel=1e-9)
    vectors = np.array([(np.array(n) - 2) @ supercell for n in np.ndindex(5, 5, 5) if n != (2, 2, 2)])
    shortest = np.linalg.norm(vectors, axis=1).min()
    assert shortest >= shape * (count * 3.6**3 / 4) ** (1 / 3)


def test_near_cubic_beats_diagonal_for_long_cells(rng: np.random.Generator) -> None:
    cell = np.diag([2.5, 2.7, 14.0]) + np.array([[0, 0, 0], [0.9, 0, 0], [0.4, 0.3, 0]])
    matrix = near_cubic_matrix(cell, 16, rng)
    assert round(np.linalg.det(matrix)) == 16
    assert np.linalg.norm(matrix @ cell, axis=1).min() > 8.5


def test_diagonal_repeats_only_periodic_directions() -> None:
    slab = fcc111("Cu", (1, 1, 3), vacuum=6.0)
    assert diagonal_repeats(slab, 2, 9) == (3, 3, 1)
    assert diagonal_repeats(slab, 2, 8) == (2, 2, 1)
    assert diagonal_repeats(slab, 5, 8) == (2, 3, 1)
    wire = Atoms("H", cell=[2.0, 5.0, 20.0], pbc=True)
    assert diagonal_repeats(wire, 2, 11) == (5, 2, 1)
    assert diagonal_repeats(wire, 11, 11) == (11, 1, 1)


# Surfaces and vacancies


@pytest.mark.parametrize("crystal", [bulk("Cu"), bulk("NaCl", "rocksalt", a=5.64), bulk("Ti")], ids=str)
def test_surfaces_have_vacuum_and_the_composition_of_the_bulk(crystal: Atoms, rng: np.random.Generator) -> None:
    surface = Surface(max_index=2, thickness=7.0, vacuum=11.0, max_atoms=30)
    layers = slab_layers(crystal, surface, MANY)
    assert layers
    reciprocal = crystal.cell.reciprocal()
    for miller, count in layers.items():
        spacing = 1 / np.linalg.norm(miller @ reciprocal)
        assert (count - 1) * spacing < 7.0 <= count * spacing + 1e-6
        assert tuple(-index for index in miller) not in layers
        assert math.gcd(*miller) == 1
    shapes = set()
    for _ in range(15):
        slab = apply(Kind(surface=surface), crystal, MANY, rng)
        assert slab.pbc.all()
        assert len(slab) <= 30
        fractions = {s: n / len(slab) for s, n in Counter(slab.symbols).items()}
        assert fractions == {s: n / len(crystal) for s, n in Counter(crystal.symbols).items()}
        z = slab.positions[:, 2]
        np.testing.assert_allclose(slab.cell.array[:2, 2], 0, atol=1e-12)
        np.testing.assert_allclose(slab.cell.array[2], [0, 0, np.ptp(z) + 11.0], atol=1e-9)
        assert z.min() == pytest.approx(5.5)
        shapes.add((len(slab), round(slab.cell[2, 2], 3)))
    assert len(shapes) >= 2


def test_a_slab_is_a_piece_of_the_crystal(rng: np.random.Generator) -> None:
    slab = apply(Kind(surface=Surface(thickness=12.0)), bulk("Cu", a=3.6), MANY, rng)
    slab.calc = EMT()
    surface_energy = slab.get_potential_energy() - len(slab) * _energy(bulk("Cu", a=3.6))
    area = np.linalg.norm(np.cross(*slab.cell.array[:2]))
    assert 0.02 < surface_energy / (2 * area) < 0.12  # eV/Å^2
    distances = slab.repeat((3, 3, 1)).get_all_distances()
    assert np.min(distances[distances > 0]) == pytest.approx(3.6 / math.sqrt(2), rel=1e-9)


def _energy(atoms: Atoms) -> float:
    atoms.calc = EMT()
    return float(atoms.get_potential_energy()) / len(atoms)


def test_vacancies(rng: np.random.Generator, quartz_like: Atoms) -> None:
    kind = Kind(vacancies=2)
    lost = Counter[str]()
    for _ in range(60):
        frame = apply(kind, quartz_like, MANY, rng)
        assert len(frame) == 2
        np.testing.assert_array_equal(frame.cell.array, quartz_like.cell.array)
        kept = {tuple(row) for row in frame.positions}
        assert kept < {tuple(row) for row in quartz_like.positions}
        lost.update(frame.get_chemical_formula().split())
    assert len(lost) == 2  # Cu2 and CuNi
    assert not applies(kind, bulk("Cu", cubic=True)[:2], MANY)


# Kinds and seeds


def test_kinds_are_drawn_by_weight_and_only_where_they_apply(rng: np.random.Generator) -> None:
    recipe = Recipe(
        frames=2,
        kinds={
            "original": Kind(weight=1.0),
            "rattled": Kind(weight=3.0, sigma=(0.1, 0.1)),
            "strained": Kind(weight=4.0, volume=(0.9, 1.1)),
            "surface": Kind(weight=2.0, surface=Surface()),
        },
    )
    crystal, water = bulk("Cu"), molecule("H2O")

    def shares(atoms: Atoms, frame: int) -> dict[str, float]:
        drawn = Counter(draw_kind(atoms, recipe, frame, rng) for _ in range(2000))
        return {name: n / 2000 for name, n in drawn.items()}

    assert shares(crystal, 0) == pytest.approx(
        {"original": 0.1, "rattled": 0.3, "strained": 0.4, "surface": 0.2}, abs=0.04
    )
    assert shares(crystal, 1) == pytest.approx({"rattled": 3 / 9, "strained": 4 / 9, "surface": 2 / 9}, abs=0.04)
    assert shares(water, 0) == pytest.approx({"original": 0.25, "rattled": 0.75}, abs=0.04)
    assert set(shares(water, 1)) == {"rattled"}
    only_strain = Recipe(kinds={"strained": Kind(volume=(0.9, 1.1))})
    with pytest.raises(ValueError, match="no kind of the recipe"):
        draw_kind(water, only_strain, 0, rng)


def test_frame_seeds_differ_and_repeat() -> None:
    seeds = {frame_seed(s, name, f) for s in range(3) for name in ("a", "b", "1/a") for f in range(20)}
    assert len(seeds) == 180
    assert max(seeds) < 2**63
    assert frame_seed(1, "mp-149", 2) == frame_seed(1, "mp-149", 2)


@pytest.mark.parametrize("name", ["default", "phonon", "displaced"])
def test_same_seed_same_frame(name: str, quartz_like: Atoms) -> None:
    recipe = load_recipe(name)
    frames = []
    for seed in (11, 11, 12):
        rng = np.random.default_rng(seed)
        kind = draw_kind(quartz_like, recipe, 1, rng)
        frames.append(apply(recipe.kinds[kind], quartz_like, 200, rng))
    assert frames[0] == frames[1]
    assert frames[0] != frames[2]


def test_initial_magnetic_moments_stay(rng: np.random.Generator, quartz_like: Atoms) -> None:
    quartz_like.set_initial_magnetic_moments([0.0, 2.0, 0.0, 0.0])
    frame = apply(Kind(supercell=Supercell(atoms=(8, 8))), quartz_like, MANY, rng)
    moments = frame.get_initial_magnetic_moments()
    np.testing.assert_array_equal(moments, np.where(frame.symbols == "Ni", 2.0, 0.0))


@pytest.mark.parametrize("pbc", [True, (True, True, False), False])
def test_minimum_distance_looks_at_images(pbc: bool | tuple[bool, bool, bool]) -> None:
    pair = Atoms("H2", positions=[[0.1, 1, 1], [3.7, 1, 1]], cell=[4.0, 4, 4], pbc=pbc)
    assert too_close(pair, 0.5) == bool(pair.pbc[0])
    assert not too_close(pair, 0.3)
    assert not too_close(pair, 0.0)


def test_minimum_distance_in_small_skewed_cells(rng: np.random.Generator) -> None:
    outcomes = set()
    for _ in range(40):
        cell = np.diag([1.5, 1.5, 6.0]) + np.tril(rng.normal(scale=4.0, size=(3, 3)), -1)
        atoms = Atoms("H3", scaled_positions=3 * rng.random((3, 3)), cell=cell, pbc=(True, True, rng.random() < 0.5))
        nearest = neighbor_list("d", atoms, 3.0).min(initial=3.0)
        assert too_close(atoms, nearest + 1e-6) == (nearest < 3.0)
        assert not too_close(atoms, nearest - 1e-6)
        outcomes.add(nearest < 1.0)
    assert outcomes == {True, False}
