"""Phonons against ASE's Lennard-Jones in phonopy, and the two routes to force constants against one another."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from phonopy import Phonopy
from pymatgen.core import Lattice, Structure
from scipy.integrate import trapezoid

from ase_potnet.integrations import (
    PhononWarning,
    PotNetMLP,
    gruneisen,
    imaginary_modes,
    phonons,
    quasi_harmonic,
    relax,
)
from ase_potnet.integrations.harmonic import harmonic
from ase_potnet.integrations.potnet_mlp import to_atoms, to_phonopy
from ase_potnet.integrations.relaxation import RelaxationWarning
from ase_potnet.models import build_model

from . import lennard_jones

QUICK: dict[str, Any] = {"supercell": (2, 2, 2), "mesh": (4, 4, 4), "band_points": 5}
QPOINTS = [[0.5, 0, 0], [0.5, 0.5, 0], [0.1, 0.2, 0.3]]
LATTICE = 4.6


def ordered() -> Atoms:
    """Kr Ar3 as in Cu3Au: two masses on a lattice of equal atoms."""
    atoms = bulk("Ar", "fcc", a=LATTICE, cubic=True)
    atoms.symbols[0] = "Kr"
    return atoms


@pytest.fixture(scope="module")
def ph() -> Phonopy:
    with warnings.catch_warnings():
        warnings.simplefilter("error", PhononWarning)  # nothing to warn of
        return phonons(ordered(), lennard_jones.model(), **QUICK)


def oracle(ph: Phonopy) -> Phonopy:
    """The same crystal and supercell with ASE's calculator and phonopy alone."""
    other = Phonopy(ph.unitcell, supercell_matrix=ph.supercell_matrix, primitive_matrix="P")
    other.generate_displacements(distance=0.01)
    forces = []
    for cell in other.supercells_with_displacements or []:
        atoms = Atoms(cell.symbols, positions=cell.positions, cell=cell.cell, pbc=True)
        atoms.calc = lennard_jones.ase_calculator()
        forces.append(atoms.get_forces())
    other.forces = np.array(forces)
    other.produce_force_constants()
    other.symmetrize_force_constants()
    return other


def test_frequencies_are_those_of_ase_with_phonopy(ph: Phonopy) -> None:
    expected = oracle(ph).run_qpoints(QPOINTS).frequencies
    np.testing.assert_allclose(ph.run_qpoints(QPOINTS).frequencies, expected, atol=1e-5)
    assert expected.min() > 0.3


def test_everything_has_been_run(ph: Phonopy) -> None:
    thermal = ph.thermal_properties
    assert thermal is not None
    assert thermal.temperatures[-1] == 1000
    assert thermal.heat_capacity[-1] == pytest.approx(3 * 8.314 * 4 * 63 / 64, rel=2e-2)  # without 3 modes at Γ
    dos = ph.total_dos
    assert dos is not None
    assert trapezoid(dos.dos, dos.frequency_points) == pytest.approx(12, rel=0.05)
    assert ph.band_structure is not None
    assert ph.band_structure.frequencies[0].shape[1] == 12
    assert "$\\Gamma$" in (ph.band_structure.labels or [])


def test_relaxed_to_zero_stress(ph: Phonopy) -> None:
    _, forces, stress = PotNetMLP(lennard_jones.model()).evaluate([ph.unitcell])
    assert np.abs(forces).max() < 1e-4
    assert np.abs(stress).max() < 1e-4
    assert ph.unitcell.cell[0, 0] != pytest.approx(LATTICE, abs=1e-3)


def test_force_constants_are_symmetric(ph: Phonopy) -> None:
    constants = ph.force_constants
    assert constants is not None
    scale = np.abs(constants).max()
    assert np.abs(constants.sum(axis=1)).max() < 1e-10 * scale
    p2s, s2p = ph.primitive.p2s_map, ph.primitive.s2p_map
    for i, atom in enumerate(p2s):
        block = constants[i, p2s]
        for j in range(len(p2s)):
            np.testing.assert_allclose(block[j], constants[j, p2s[i]].T, atol=1e-10 * scale)
        assert s2p[atom] == atom


@pytest.mark.parametrize(
    "atoms",
    [ordered(), bulk("Ar", "hcp", a=3.4, c=5.4), bulk("Ar", "fcc", a=LATTICE)],
    ids=["cubic", "hexagonal", "primitive"],
)
def test_analytic_route_agrees(atoms: Atoms) -> None:
    mlp = PotNetMLP(lennard_jones.model())
    found = [
        harmonic(atoms, mlp, supercell=(2, 2, 2), method=method, distance=1e-3).run_qpoints(QPOINTS).frequencies
        for method in ("finite", "analytic")
    ]
    np.testing.assert_allclose(found[0], found[1], atol=2e-4)


def test_analytic_route_of_a_network_with_lattice_sums() -> None:
    """Random weights, a crystal of low symmetry: a whole Hessian by differences of forces."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        options = {"width": 8, "message_width": (4, 2, 2), "n_sources": 2}
        model = build_model("equivariant-potnet", options).double()
        with torch.no_grad():
            model.site_potentials.strength.normal_()  # type: ignore[union-attr, operator]
    atoms = bulk("ZnO", "wurtzite", a=3.25, c=5.2)
    atoms.positions[0] += (0.2, 0.05, 0.0)
    mlp = PotNetMLP(model)
    analytic = harmonic(atoms, mlp, supercell=(1, 1, 1), method="analytic").force_constants
    step, columns = 1e-3, []
    for i in range(4):
        for axis in range(3):
            ends = [atoms.copy(), atoms.copy()]
            for atoms_end, sign in zip(ends, (1, -1), strict=True):
                atoms_end.positions[i, axis] += sign * step
            _, forces, _ = mlp.evaluate([to_phonopy(end) for end in ends])
            columns.append((forces[1] - forces[0]) / (2 * step))
    numeric = np.array(columns).reshape(4, 3, 4, 3).transpose(0, 2, 1, 3)
    assert analytic is not None
    np.testing.assert_allclose(analytic, numeric, atol=1e-4 * np.abs(numeric).max())


def test_basis_of_the_cell_does_not_matter(ph: Phonopy) -> None:
    primitive = bulk("Ar", "fcc", a=LATTICE)
    runs = [phonons(atoms, lennard_jones.model(), supercell=9.0, mesh=(4, 4, 4), band_points=5) for atoms in
            (primitive, bulk("Ar", "fcc", a=LATTICE, cubic=True))]  # fmt: skip
    assert [len(run.primitive) for run in runs] == [1, 1]
    free = [run.thermal_properties.free_energy for run in runs]
    np.testing.assert_allclose(free[0], free[1], atol=1e-3)


def test_pymatgen_structure_and_other_masses(ph: Phonopy) -> None:
    from pymatgen.core import Structure

    atoms = ordered()
    structure = Structure(atoms.cell.array, list(atoms.symbols), atoms.get_scaled_positions())
    other = phonons(structure, lennard_jones.model(), **QUICK)
    np.testing.assert_allclose(other.run_qpoints(QPOINTS).frequencies, ph.run_qpoints(QPOINTS).frequencies, atol=1e-5)
    atoms.set_masses(4 * atoms.get_masses())
    heavy = phonons(atoms, lennard_jones.model(), **QUICK)
    np.testing.assert_allclose(
        2 * heavy.run_qpoints(QPOINTS).frequencies, ph.run_qpoints(QPOINTS).frequencies, atol=1e-5
    )


def test_isotopes_are_refused() -> None:
    atoms = bulk("Ar", "fcc", a=5.0, cubic=True)
    atoms.set_masses([40.0, 36.0, 40.0, 40.0])
    with pytest.raises(ValueError, match=r"atoms: wanted one mass .* \[36\.0, 40\.0\]"):
        phonons(atoms, model=lennard_jones.model(), relax=False)


def test_imaginary_modes_are_reported() -> None:
    """Simple cubic Lennard-Jones shears."""
    with pytest.warns(PhononWarning, match=r"imaginary modes: .*i THz at q = \(.*at wave vectors of the supercell"):
        found = phonons(bulk("Ar", "sc", a=3.3), lennard_jones.model(), **QUICK)
    modes = imaginary_modes(found)
    assert modes[0].frequency < -0.1
    assert modes == sorted(modes, key=lambda mode: mode.frequency)
    exact = next(mode for mode in modes if mode.commensurate)
    assert found.run_qpoints([exact.q]).frequencies[0][exact.band] == pytest.approx(exact.frequency, abs=1e-6)
    assert not imaginary_modes(found, tolerance=50)


def test_unfinished_relaxation_is_reported() -> None:
    with pytest.warns(PhononWarning, match=r"did not reach fmax.*GPa are left"):
        phonons(bulk("Ar", "fcc", a=4.75), lennard_jones.model(), max_steps=1, **QUICK)


def test_forces_on_an_unrelaxed_structure_are_reported() -> None:
    atoms = bulk("Ar", "fcc", a=LATTICE).repeat((1, 1, 2))
    atoms.positions[1, 2] += 0.1
    with pytest.warns(PhononWarning) as raised:
        found = phonons(atoms, lennard_jones.model(), relax=False, **QUICK | {"supercell": (2, 2, 1)})
    assert any("not relaxed in this model: forces up to" in str(warning.message) for warning in raised)
    np.testing.assert_allclose(found.unitcell.cell, atoms.cell.array, atol=1e-6)


def test_charges_split_the_optical_modes(ph: Phonopy, tmp_path: Path) -> None:
    charges = {"Kr": 0.9, "Ar": -0.3}
    near_gamma = [[0.001, 0, 0]]
    plain = ph.run_qpoints(near_gamma).frequencies
    runs = [
        phonons(ordered(), lennard_jones.model(), nac={"born": born, "dielectric": 2.0}, **QUICK)
        for born in (charges, [0.9, -0.3, -0.3, -0.3])
    ]
    first, second = (run.run_qpoints(near_gamma).frequencies for run in runs)
    np.testing.assert_allclose(first, second, atol=1e-8)
    assert (first - plain).max() > 0.05
    np.testing.assert_allclose(runs[0].run_qpoints([[0, 0, 0]]).frequencies, ph.run_qpoints([[0, 0, 0]]).frequencies,
                               atol=1e-4)  # fmt: skip
    one, eye = "{0} 0 0 0 {0} 0 0 0 {0}\n".format, "14.4\n"
    (tmp_path / "BORN").write_text(eye + one(2.0) + one(0.9) + one(-0.3))
    from_file = phonons(ordered(), lennard_jones.model(), nac=tmp_path / "BORN", **QUICK)
    np.testing.assert_allclose(from_file.run_qpoints(near_gamma).frequencies, first, atol=1e-3)


def test_gruneisen_parameters_of_lennard_jones() -> None:
    result = gruneisen(
        bulk("Ar", "fcc", a=LATTICE), lennard_jones.model(), supercell=9.0, mesh=(4, 4, 4), band_points=5
    )
    mesh = result.get_mesh()
    assert mesh is not None
    gamma = mesh[4][mesh[2] > 0.5]
    assert 2 < np.median(gamma) < 4  # rare gases: 2.5 to 3.5
    assert result.get_band_structure() is not None


def test_quasi_harmonic_crystal_expands() -> None:
    result = quasi_harmonic(
        bulk("Ar", "fcc", a=LATTICE), lennard_jones.model(), volumes=(0.97, 0.99, 1.01, 1.03, 1.05, 1.07),
        temperatures=np.arange(0, 131, 10), supercell=9.0, mesh=15.0,
    )  # fmt: skip
    assert result.equilibrium_volumes[-1] > 1.01 * result.equilibrium_volumes[0]
    assert (result.thermal_expansion[3:] > 0).all()


def test_crystal_that_expands_beyond_the_volumes_is_warned_of() -> None:
    with pytest.warns(PhononWarning, match=r"equilibrium volume outside the volumes from \d+ K on"):
        quasi_harmonic(
            bulk("Ar", "fcc", a=LATTICE), lennard_jones.model(), volumes=(0.98, 0.985, 0.99, 0.995, 1.0),
            temperatures=np.arange(0, 91, 30), supercell=9.0, mesh=15.0,
        )  # fmt: skip


def test_quasi_harmonic_temperatures_are_those_that_were_asked_for() -> None:
    options: dict[str, Any] = {"volumes": (0.97, 0.99, 1.01, 1.03, 1.05), "supercell": 9.0, "mesh": 15.0}
    coarse = quasi_harmonic(bulk("Ar", "fcc", a=LATTICE), lennard_jones.model(), temperatures=[0, 20, 40], **options)
    np.testing.assert_allclose(coarse.temperatures, [0, 20, 40])
    assert coarse.thermal_expansion[2] > 0
    for wrong in ([100, 200, 300, 1000], [0, 10], [0, 10, 30], [10, 20, 30], [20, 10, 0]):
        with pytest.raises(ValueError, match="temperatures: wanted three or more from 0 K on, evenly spaced"):
            quasi_harmonic(ordered(), lennard_jones.model(), temperatures=wrong)


def test_left_handed_cells() -> None:
    crystal = ordered()
    crystal.set_cell(crystal.cell.array * [1.0, 1.02, 1.05], scale_atoms=True)
    left = crystal.copy()
    left.set_cell(crystal.cell.array[[1, 0, 2]])  # atoms stay
    options = QUICK | {"supercell": (2, 1, 2), "relax": False}
    mirrored = options | {"supercell": (1, 2, 2)}
    one, other = phonons(crystal, lennard_jones.model(), **options), phonons(left, lennard_jones.model(), **mirrored)
    np.testing.assert_allclose(
        np.sort(one.run_qpoints([[0.5, 0, 0.5]]).frequencies),
        np.sort(other.run_qpoints([[0.5, 0, 0.5]]).frequencies),
        atol=1e-6,
    )
    gruneisen(left, lennard_jones.model(), supercell=(1, 1, 1), mesh=(2, 2, 2), band_points=2)


def test_no_steps_of_relaxation() -> None:
    with pytest.warns(PhononWarning, match="did not reach fmax .* in 0 steps"):
        phonons(bulk("Ar", "fcc", a=LATTICE + 0.2), lennard_jones.model(), max_steps=0, **QUICK)


def test_deuterium_of_pymatgen_is_heavy() -> None:
    structure = Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.08), ["Li", "D"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    assert sorted(set(to_atoms(structure).get_masses().round(2))) == [2.01, 6.94]


def test_progress_is_told() -> None:
    seen: list[tuple[str, float]] = []
    phonons(bulk("Ar", "fcc", a=LATTICE), lennard_jones.model(), progress=lambda *now: seen.append(now), **QUICK)
    assert list(dict.fromkeys(stage for stage, _ in seen)) == ["relax", "forces", "properties"]
    assert all(0 <= part <= 1 for _, part in seen)
    assert seen[-1] == ("properties", 1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "magic"}, "method: wanted one of finite, analytic"),
        ({"supercell": "large"}, "supercell: wanted"),
        ({"nac": "nowhere"}, "nac: no file nowhere"),
        ({"nac": {"born": {"Ar": 0}}}, "nac: wanted a mapping with 'born' and 'dielectric'"),
        ({"nac": {"born": {"Kr": 1.0}, "dielectric": 2}}, "nac: 'born' has no charge for Ar"),
        ({"nac": {"born": [1.0, 2.0], "dielectric": 2}}, "nac: wanted 'born' for 4 atoms"),
        ({"nac": {"born": {"Kr": 1.0, "Ar": 1}, "dielectric": [2, 2]}}, "nac: wanted 'dielectric'"),
        ({"nac": {"born": {"Kr": 1.0, "Ar": None}, "dielectric": 2}}, "nac: wanted 'born' in finite numbers"),
        ({"nac": {"born": 1.0, "dielectric": 2}}, "nac: wanted 'born' for 4 atoms"),
        ({"nac": {"born": {"Kr": 1.0, "Ar": 1}, "dielectric": None}}, "nac: wanted 'dielectric' in finite numbers"),
        ({"nac": {"born": {"Kr": 1.0, "Ar": 1}, "dielectric": -2}}, "nac: wanted a positive 'dielectric'"),
        ({"nac": {"born": {"Kr": 1, "Ar": 1}, "dielectric": 2, "method": "x"}}, "nac: wanted 'method' as one of gonze"),
        ({"mesh": 0.0}, "mesh: wanted a positive length"),
        ({"mesh": float("nan")}, "mesh: wanted a positive length"),
        ({"mesh": (2, -2, 2)}, "mesh: wanted a positive length in Å or three positive integers"),
        ({"temperatures": "abc"}, "temperatures: wanted numbers from 0 K"),
        ({"distance": 0.0}, "distance: wanted a positive length"),
        ({"distance": float("inf")}, "distance: wanted a positive length"),
        ({"distance": "0.01"}, "distance: wanted a positive length"),
        ({"mesh": 1e9}, "mesh: wanted a positive length .* 10,000 at most"),
        ({"mesh": 3000.0}, "mesh: .* wave vectors; up to"),
        ({"mesh": (1000, 1000, 1000)}, "mesh: 1.0e\\+09 wave vectors; up to"),
        ({"supercell": 400.0}, "supercell: .* atoms; up to 10,000"),
        ({"max_steps": -1}, "max_steps: wanted an integer from 0, got -1"),
        ({"symprec": 2.0}, "symprec: wanted a length in Å above 0 and up to 0.5"),
        ({"nac": {"born": {"Kr": 1.0, "Ar": 1}, "dielectric": 2, "factor": "x"}}, "nac: wanted 'factor' in numbers"),
        ({"model": "nowhere"}, "model: no packaged model"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"model": lennard_jones.model(), "relax": False} | QUICK | options
    with pytest.raises(ValueError, match=message):
        phonons(ordered(), **arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eos": "cubic"}, "eos: wanted one of vinet"),
        ({"temperatures": [300, 200, 100]}, "temperatures: wanted three or more from 0 K on"),
        ({"volumes": None}, "volumes: wanted five or more different"),
        ({"pressure": "x"}, "pressure: wanted GPa"),
        ({"volumes": (1, 1, 1, 1, 1)}, "volumes: wanted five or more different"),
        ({"volumes": (0.98, 0.99, 1, 1.01, float("nan"))}, "volumes: wanted five or more different"),
        ({"mesh": 0}, "mesh: wanted a positive length"),
    ],
)
def test_arguments_of_quasi_harmonic_are_checked_first(
    options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ase_potnet.integrations.volumes._at_volumes", None)  # calling it would be too late
    with pytest.raises(ValueError, match=message):
        quasi_harmonic(ordered(), lennard_jones.model(), **options)


def test_one_atom_is_too_small_a_supercell() -> None:
    crystal = bulk("Ar", "fcc", a=LATTICE)
    with pytest.raises(ValueError, match="supercell: wanted two atoms at least"):
        phonons(crystal, lennard_jones.model(), supercell=(1, 1, 1))
    with pytest.raises(ValueError, match="supercell: wanted two atoms at least"):
        gruneisen(crystal, lennard_jones.model(), supercell=(1, 1, 1))


def test_relaxation_keeps_what_it_does_not_change() -> None:
    crystal = bulk("Ar", "fcc", a=LATTICE + 0.1, cubic=True)
    crystal.info["name"] = "argon"
    crystal.set_tags([0, 1, 2, 3])
    crystal.set_initial_magnetic_moments([1, -1, 1, -1])
    crystal.set_array("own", np.arange(4.0))
    found = relax(crystal, lennard_jones.model()).atoms
    assert found.info == crystal.info
    assert found.get_volume() != pytest.approx(crystal.get_volume(), rel=1e-3)
    for name in ("tags", "initial_magmoms", "own"):
        assert np.array_equal(found.arrays[name], crystal.arrays[name])


@pytest.mark.parametrize("factor", [0.88, 1.15])
def test_a_relaxation_to_another_crystal_is_warned_of(factor: float) -> None:
    far = bulk("Ar", "fcc", a=factor * LATTICE)
    with pytest.warns(RelaxationWarning, match=r"volume changed by [+-]\d+ %"):
        found = relax(far, lennard_jones.model(), fmax=0.01)
    near = relax(bulk("Ar", "fcc", a=LATTICE), lennard_jones.model(), fmax=0.01)
    assert found.atoms.get_volume() == pytest.approx(near.atoms.get_volume(), rel=0.02)
