"""What people do with the packaged potential, on real crystals, a slab, molecules and an alloy."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, fcc111, molecule
from ase.eos import EquationOfState
from ase.filters import FrechetCellFilter
from ase.md.verlet import VelocityVerlet
from ase.mep import NEB
from ase.optimize import BFGS, FIRE

from ase_potnet import PotNetCalculator, evaluate


def rutile() -> Atoms:
    u = 0.305
    places = [(0, 0, 0), (0.5, 0.5, 0.5), (u, u, 0), (-u, -u, 0), (0.5 + u, 0.5 - u, 0.5), (0.5 - u, 0.5 + u, 0.5)]
    return Atoms("Ti2O4", scaled_positions=places, cell=[4.594, 4.594, 2.959], pbc=True)


def perovskite() -> Atoms:
    places = [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)]
    return Atoms("SrTiO3", scaled_positions=places, cell=[3.905] * 3, pbc=True)


def alloy() -> Atoms:
    """Copper and gold at random on a face-centred lattice, at the mean of their volumes."""
    atoms = bulk("Cu", "fcc", a=3.87).repeat((2, 2, 2))
    atoms.symbols[np.random.default_rng(0).permutation(8)[:4]] = "Au"
    return atoms


# at their measured lattice constants
CRYSTALS = {
    "NaCl": bulk("NaCl", "rocksalt", a=5.64),
    "Si": bulk("Si", "diamond", a=5.431),
    "MgO": bulk("MgO", "rocksalt", a=4.212),
    "TiO2": rutile(),
    "SrTiO3": perovskite(),
    "Cu": bulk("Cu", "fcc", a=3.615),
    "CuAu alloy": alloy(),
}


@pytest.fixture(scope="module")
def calculator() -> PotNetCalculator:
    return PotNetCalculator()


@pytest.fixture(scope="module")
def relaxed(calculator: PotNetCalculator) -> dict[str, Atoms]:
    """MgO and Cu at rest."""
    found = {name: CRYSTALS[name].copy() for name in ("MgO", "Cu")}
    for atoms in found.values():
        atoms.calc = calculator
        assert BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=1e-4, steps=100)
    return found


@pytest.mark.parametrize("name", CRYSTALS)
def test_relaxation_of_cell_and_atoms(name: str, calculator: PotNetCalculator) -> None:
    atoms = CRYSTALS[name].copy()
    atoms.rattle(0.05, rng=np.random.default_rng(0))
    atoms.set_cell(atoms.cell * 1.02, scale_atoms=True)
    atoms.calc = calculator
    before = atoms.get_potential_energy()
    both = FrechetCellFilter(atoms)
    assert BFGS(both, logfile=None).run(fmax=0.01, steps=300)
    # ASE's limit is on forces times the deformation gradient
    assert np.linalg.norm(atoms.get_forces() @ both.deform_grad(), axis=1).max() <= 0.01
    assert np.abs(atoms.get_stress()).max() * atoms.get_volume() / len(atoms) <= 0.01
    assert atoms.get_potential_energy() < before
    assert np.cbrt(atoms.get_volume() / CRYSTALS[name].get_volume()) == pytest.approx(1, abs=0.04)


def scaled(atoms: Atoms, strain: float) -> Atoms:
    result = atoms.copy()
    result.set_cell(atoms.cell * (1 + strain), scale_atoms=True)
    return result


def bulk_modulus(atoms: Atoms) -> tuple[float, float]:
    """Volume (Å^3) and bulk modulus (GPa) of an equation of state."""
    cells = [scaled(atoms, strain) for strain in np.linspace(-0.02, 0.02, 7)]
    energies = [result.energy for result in evaluate(cells, forces=False, stress=False)]
    volume, _, modulus = EquationOfState([cell.get_volume() for cell in cells], energies, eos="birchmurnaghan").fit()
    return volume, modulus / units.GPa


@pytest.mark.parametrize("name", ["MgO", "Cu"])
def test_equation_of_state_and_elastic_constants_agree(name: str, relaxed: dict[str, Atoms]) -> None:
    """Energies at several volumes and stresses of strained cells (matcalc) give one bulk modulus."""
    from matcalc import ElasticityCalc

    atoms = relaxed[name]
    volume, modulus = bulk_modulus(atoms)
    assert volume == pytest.approx(atoms.get_volume(), rel=2e-3)
    strains = (-0.004, 0.004)
    elasticity = ElasticityCalc(
        atoms.calc, norm_strains=strains, shear_strains=strains, relax_structure=False, units_GPa=True, r2_min=-1
    )  # r2_min: R² of components that are zero by symmetry means nothing
    tensor = np.asarray(elasticity.calc(atoms)["elastic_tensor"].voigt)
    assert tensor[:3, :3].sum() / 9 == pytest.approx(modulus, rel=0.03)
    assert np.linalg.eigvalsh(tensor).min() > 0
    axes = np.trace(tensor[:3, :3]) / 3, np.trace(tensor[3:, 3:]) / 3  # three equal constants of a cubic crystal
    np.testing.assert_allclose(np.diag(tensor), np.repeat(axes, 3), rtol=0.01)


def drift(atoms: Atoms, picoseconds: float, step: float = 2.0) -> float:
    """Largest |change| of the mean total energy of any tenth of the run against the first, eV an atom; step in fs."""
    atoms.calc = PotNetCalculator()
    spread = np.sqrt(units.kB * 600 * atoms.get_masses())  # K; half of it becomes potential energy
    atoms.set_momenta(np.random.default_rng(0).normal(size=(len(atoms), 3)) * spread[:, None])
    dynamics = VelocityVerlet(atoms, step * units.fs)
    energies = []
    for _ in range(10):
        part = []
        for _ in range(round(picoseconds * 20 / step)):
            dynamics.run(5)
            part.append(atoms.get_total_energy())
        energies.append(np.mean(part))
    return float(np.abs(np.array(energies) - energies[0]).max() / len(atoms))


def test_constant_energy() -> None:
    assert drift(bulk("NaCl", "rocksalt", a=5.65, cubic=True), 0.2) < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("atoms", "step"),
    [
        (bulk("NaCl", "rocksalt", a=5.65, cubic=True), 4.0),
        (bulk("Si", "diamond", a=5.47, cubic=True), 3.0),
        (perovskite(), 2.0),
    ],
    ids=str,
)
def test_constant_energy_for_ten_picoseconds(atoms: Atoms, step: float) -> None:
    """Steps of a twentieth of the shortest period at most."""
    assert drift(atoms, 10.0, step) < 1e-3


@pytest.mark.filterwarnings("ignore:Using heuristic P_mass")
def test_langevin_at_constant_pressure_lets_a_compressed_crystal_expand(calculator: PotNetCalculator) -> None:
    from ase.md.langevinbaoab import LangevinBAOAB

    atoms = scaled(bulk("NaCl", "rocksalt", a=5.64), -0.03)
    atoms.calc = calculator
    before = atoms.get_volume()
    dynamics = LangevinBAOAB(
        atoms, 2 * units.fs, temperature_K=100, externalstress=0.0, hydrostatic=True, T_tau=50 * units.fs,
        P_tau=200 * units.fs, rng=0,
    )  # fmt: skip
    volumes = []
    for _ in range(80):
        dynamics.run(3)
        volumes.append(atoms.get_volume())
    assert before < np.mean(volumes[-40:]) < 1.25 * before  # over a period of the barostat
    assert 1.04 * before < max(volumes)


def test_vacancy_hop(calculator: PotNetCalculator) -> None:
    """An atom of copper moves into the vacancy beside it: the barrier lies half-way, the ends are equal."""
    ends = []
    for vacancy in (0, 1):
        atoms = bulk("Cu", "fcc", a=3.6).repeat((2, 2, 2))
        mover = atoms[1 - vacancy].position.copy()
        del atoms[[0, 1]]
        atoms.append("Cu")
        atoms.positions[-1] = mover
        atoms.calc = calculator
        assert FIRE(atoms, logfile=None).run(fmax=0.05, steps=100)
        ends.append(atoms)
    start, end = (atoms.get_potential_energy() for atoms in ends)
    assert start == pytest.approx(end, abs=1e-3)
    images = [ends[0], *(ends[0].copy() for _ in range(3)), ends[1]]
    band = NEB(images, climb=True, method="improvedtangent", allow_shared_calculator=True)
    band.interpolate(mic=True)
    for image in images[1:-1]:
        image.calc = calculator
    assert FIRE(band, logfile=None).run(fmax=0.2, steps=100)
    energies = np.array([image.get_potential_energy() for image in images]) - start
    assert energies.argmax() == 2
    assert energies[2] > 0.1
    assert energies[1] == pytest.approx(energies[3], abs=0.05)


def test_pymatgen_relaxes_and_calculates(calculator: PotNetCalculator) -> None:
    from pymatgen.core import Structure

    atoms = rutile()
    structure = Structure(atoms.cell.array, list(atoms.symbols), atoms.get_scaled_positions())
    found = structure.relax(calculator=calculator, fmax=0.02)
    relaxed = dict(found.calc.results)  # before the calculator goes on to another structure
    assert np.linalg.norm(relaxed["forces"], axis=1).max() < 0.02
    assert found.volume == pytest.approx(structure.volume, rel=0.12)
    assert relaxed["energy"] <= structure.calculate(calculator=calculator).results["energy"]


def test_slab_relaxes(calculator: PotNetCalculator, relaxed: dict[str, Atoms]) -> None:
    slab = fcc111("Cu", (1, 1, 4), a=float(np.cbrt(4 * relaxed["Cu"].get_volume())), vacuum=8.0)
    slab.calc = calculator
    assert BFGS(slab, logfile=None).run(fmax=0.01, steps=100)
    cost = slab.get_potential_energy() - 4 * relaxed["Cu"].get_potential_energy()
    assert cost > 0.2  # eV for two faces of one atom each


@pytest.mark.parametrize("name", ["H2O", "CO2"])
def test_molecule_relaxes(name: str, calculator: PotNetCalculator) -> None:
    atoms = molecule(name)
    atoms.calc = calculator
    assert BFGS(atoms, logfile=None).run(fmax=0.01, steps=100)
    np.testing.assert_allclose(atoms.get_forces().sum(axis=0), 0, atol=1e-8)
    lengths = atoms.get_all_distances() / molecule(name).get_all_distances().clip(0.1)
    assert lengths[lengths > 0] == pytest.approx(1, abs=0.15)
