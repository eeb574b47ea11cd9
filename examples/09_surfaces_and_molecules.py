"""Slabs and molecules: the complete sums take any periodicity, so neither needs a box of vacuum.

Run `python examples/09_surfaces_and_molecules.py`; saves 09_surfaces_and_molecules.png in the current folder.
Needs the packaged weights, or `--model FOLDER`.
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
from ase import Atoms, units
from ase.build import bulk, fcc100, fcc110, fcc111, molecule
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS
from rich.progress import track

from ase_potnet import PotNetCalculator

mpl.use("Agg")
import matplotlib.pyplot as plt

FACES = {"(111)": fcc111, "(100)": fcc100, "(110)": fcc110}
# the measured length of the bond between the first two atoms, Å
MOLECULES = {"H2O": 0.958, "CO2": 1.160, "N2": 1.098, "O2": 1.208, "CH4": 1.087, "NH3": 1.012}


def surface_energy(face: str, layers: int, crystal: Atoms) -> float:
    """Of a relaxed slab, J/m^2. Its third cell vector is zero: the slab is periodic in two directions alone."""
    a = float(np.cbrt(4 * crystal.get_volume()))
    slab = FACES[face]("Cu", (1, 1, layers), a=a)
    slab.calc = crystal.calc
    BFGS(slab, logfile=None).run(fmax=0.01, steps=200)
    area = np.linalg.norm(np.cross(slab.cell[0], slab.cell[1]))
    cost = slab.get_potential_energy() - len(slab) * crystal.get_potential_energy()
    return cost / (2 * area) / (units.J / units.m**2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="default", help="packaged model or model folder")
    parser.add_argument("--quick", action="store_true", help="thin slabs, two molecules")
    arguments = parser.parse_args()
    calculator = PotNetCalculator(arguments.model)
    crystal = bulk("Cu", "fcc", a=3.615)
    crystal.calc = calculator
    BFGS(FrechetCellFilter(crystal), logfile=None).run(fmax=0.005, steps=100)

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    thickness = (2, 4) if arguments.quick else (2, 4, 6, 8, 10)
    for face in FACES:
        values = [surface_energy(face, layers, crystal) for layers in track(thickness, face, transient=True)]
        left.plot(thickness, values, "o-", label=f"{face}, {values[-1]:.2f}")
        print(f"Cu {face}: {values[-1]:.2f} J/m^2 ({thickness[-1]} layers)")
    left.set(xticks=thickness, xlabel="layers", ylabel="surface energy, J/m$^2$", title="copper")
    left.legend()
    for name in list(MOLECULES)[: 2 if arguments.quick else None]:
        atoms = molecule(name)
        atoms.calc = calculator
        BFGS(atoms, logfile=None).run(fmax=0.01, steps=200)
        length = atoms.get_distance(0, 1)
        print(f"{name}: {length:.3f} Å (measured {MOLECULES[name]:.3f} Å)")
        right.plot(MOLECULES[name], length, "o", color="C1")
        right.annotate(name, (MOLECULES[name], length), xytext=(5, -10), textcoords="offset points")
    ends = (0.9, 1.35)
    right.plot(ends, ends, color="0.7", zorder=0)
    right.set(xlabel="bond length, measured, Å", ylabel="bond length, potential, Å", title="molecules")
    path = Path("09_surfaces_and_molecules.png")
    figure.savefig(path, dpi=150)
    print(f"Picture: {path.resolve()}")


if __name__ == "__main__":
    main()
