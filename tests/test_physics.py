"""What people do with the packaged potential: relax, run, pull apart."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, fcc111, molecule
from ase.filters import FrechetCellFilter
from ase.md.verlet import VelocityVerlet
from ase.optimize import FIRE

from ase_potnet import PotNetCalculator


def drift(atoms: Atoms, picoseconds: float) -> float:
    """Largest |change| of the total energy of any tenth of the run against the first, eV an atom."""
    atoms.calc = PotNetCalculator()
    spread = np.sqrt(units.kB * 600 * atoms.get_masses())  # K; half of it becomes potential energy
    atoms.set_momenta(np.random.default_rng(0).normal(size=(len(atoms), 3)) * spread[:, None])
    dynamics = VelocityVerlet(atoms, 1.0 * units.fs)
    energies = []
    for _ in range(10):
        part = []
        for _ in range(round(picoseconds * 10)):
            dynamics.run(10)
            part.append(atoms.get_total_energy())
        energies.append(np.mean(part))
    return float(np.abs(np.array(energies) - energies[0]).max() / len(atoms))


def test_constant_energy() -> None:
    assert drift(bulk("NaCl", "rocksalt", a=5.65, cubic=True), 0.2) < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(
    "atoms",
    [bulk("NaCl", "rocksalt", a=5.65, cubic=True), bulk("Si", "diamond", a=5.47, cubic=True), bulk("Cu", cubic=True)],
    ids=str,
)
def test_constant_energy_for_ten_picoseconds(atoms: Atoms) -> None:
    assert drift(atoms, 10.0) < 1e-3


def test_relaxation_of_cell_and_atoms() -> None:
    atoms = bulk("MgO", "rocksalt", a=4.35)
    atoms.rattle(0.05, rng=np.random.default_rng(0))
    atoms.calc = PotNetCalculator()
    assert FIRE(FrechetCellFilter(atoms), logfile=None).run(fmax=0.01, steps=200)
    assert np.abs(atoms.get_forces()).max() < 0.01
    assert np.abs(atoms.get_stress()).max() < 0.01 / atoms.get_volume() * 3
    assert np.cbrt(4 * atoms.get_volume()) == pytest.approx(4.25, rel=0.03)


def test_slab_and_molecule_have_energies_and_forces() -> None:
    for atoms in (fcc111("Cu", (2, 2, 3), vacuum=8.0), molecule("CO2"), molecule("H2O")):
        atoms.calc = PotNetCalculator()
        assert np.isfinite(atoms.get_potential_energy())
        assert np.abs(atoms.get_forces().sum(axis=0)).max() < 1e-8
