"""Relax crystals, fit equations of state, and run molecular dynamics at constant energy.

Run `python examples/03_relax_and_run.py`; saves 03_relax_and_run.png in the current folder.
Needs the packaged weights, or `--model FOLDER`.
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.eos import EquationOfState
from ase.filters import FrechetCellFilter
from ase.md.verlet import VelocityVerlet
from ase.optimize import FIRE
from rich.progress import track

from ase_potnet import PotNetCalculator, evaluate

mpl.use("Agg")
import matplotlib.pyplot as plt

CRYSTALS = {
    "NaCl": bulk("NaCl", "rocksalt", a=5.6),
    "MgO": bulk("MgO", "rocksalt", a=4.2),
    "Si": bulk("Si", "diamond", a=5.4),
    "Cu": bulk("Cu", "fcc", a=3.6),
    "SrTiO3": Atoms(
        "SrTiO3",
        scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
        cell=[3.95] * 3,
        pbc=True,
    ),
}


def relax(atoms: Atoms, calculator: PotNetCalculator) -> Atoms:
    relaxed = atoms.copy()
    relaxed.calc = calculator
    FIRE(FrechetCellFilter(relaxed), logfile=None).run(fmax=0.005, steps=500)
    return relaxed


def equation_of_state(atoms: Atoms, model: str) -> tuple[np.ndarray, np.ndarray, float]:
    """Volumes and energies an atom, and the bulk modulus in GPa; all cells in one batch."""
    cells = []
    for strain in np.linspace(-0.03, 0.03, 9):
        cell = atoms.copy()
        cell.set_cell(atoms.cell * (1 + strain), scale_atoms=True)
        cells.append(cell)
    energies = np.array([result.energy for result in evaluate(cells, model)]) / len(atoms)
    volumes = np.array([cell.get_volume() for cell in cells]) / len(atoms)
    modulus = EquationOfState(volumes, energies).fit()[2] / units.GPa
    return volumes, energies, modulus


def constant_energy(calculator: PotNetCalculator, repeat: int, steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Time (ps), total and potential energy (meV an atom) of rock salt at about 300 K, steps of 1 fs."""
    atoms = bulk("NaCl", "rocksalt", a=5.65, cubic=True).repeat(repeat)
    atoms.calc = calculator
    spread = np.sqrt(units.kB * 600 * atoms.get_masses())  # K; half of it becomes potential energy
    atoms.set_momenta(np.random.default_rng(0).normal(size=(len(atoms), 3)) * spread[:, None])
    dynamics = VelocityVerlet(atoms, 1.0 * units.fs)
    rows = []
    for step in track(range(steps), "dynamics", transient=True):
        rows.append((step * 1e-3, atoms.get_total_energy(), atoms.get_potential_energy()))
        dynamics.run(1)
    time, total, potential = np.array(rows).T
    return time, 1e3 * (total - total[0]) / len(atoms), 1e3 * (potential - potential[0]) / len(atoms)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="default", help="packaged model or model folder")
    parser.add_argument("--quick", action="store_true", help="two crystals, a short run")
    arguments = parser.parse_args()
    calculator = PotNetCalculator(arguments.model)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for formula, atoms in list(CRYSTALS.items())[: 2 if arguments.quick else None]:
        relaxed = relax(atoms, calculator)
        volumes, energies, modulus = equation_of_state(relaxed, arguments.model)
        print(f"{formula:7} {relaxed.get_volume() / len(atoms):7.2f} Å^3/atom, bulk modulus {modulus:5.0f} GPa")
        left.plot(volumes / volumes[4], 1e3 * (energies - energies.min()), "o-", label=f"{formula}, {modulus:.0f} GPa")
    left.set(xlabel="volume / volume at rest", ylabel="energy, meV/atom", title="equations of state")
    left.legend()
    time, total, potential = constant_energy(calculator, 1 if arguments.quick else 2, 40 if arguments.quick else 2000)
    print(f"drift of the total energy over {time[-1]:.2f} ps: {total[-1] - total[0]:.3f} meV/atom")
    right.plot(time, potential, label="potential energy")
    right.plot(time, total, label="total energy")
    right.set(xlabel="time, ps", ylabel="change, meV/atom", title="rock salt at constant energy")
    right.legend()
    path = Path("03_relax_and_run.png")
    figure.savefig(path, dpi=150)
    print(f"Picture: {path.resolve()}")


if __name__ == "__main__":
    main()
