"""The barrier of a vacancy's hop in copper, by the nudged elastic band.

Run `python examples/06_vacancy_hop.py`; saves 06_vacancy_hop.png in the current folder. `--size 3` takes a cell of 107
atoms instead of 31. Needs the packaged weights, or `--model FOLDER`.
"""

import argparse
from pathlib import Path

import matplotlib as mpl
from ase import Atoms
from ase.build import bulk
from ase.filters import FrechetCellFilter
from ase.mep import NEB
from ase.mep.neb import NEBTools
from ase.optimize import BFGS, FIRE
from ase.utils.forcecurve import fit_images

from ase_potnet import PotNetCalculator

mpl.use("Agg")
import matplotlib.pyplot as plt


def with_vacancy(crystal: Atoms, vacancy: int, mover: int) -> Atoms:
    """The crystal without one atom; the atom that moves comes last."""
    others = [k for k in range(len(crystal)) if k not in (vacancy, mover)]
    return crystal[[*others, mover]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="default", help="packaged model or model folder")
    parser.add_argument("--size", type=int, default=2, help="conventional cells along each axis")
    parser.add_argument("--images", type=int, default=5, help="between the ends")
    parser.add_argument("--quick", action="store_true", help="a cell of 7 atoms, three images")
    arguments = parser.parse_args()
    calculator = PotNetCalculator(arguments.model)

    unit = bulk("Cu", "fcc", a=3.615, cubic=not arguments.quick)
    unit.calc = calculator
    BFGS(FrechetCellFilter(unit), logfile=None).run(fmax=0.005, steps=100)
    crystal = unit.repeat(2 if arguments.quick else arguments.size)
    first, second = 0, 1  # neighbours
    ends = [with_vacancy(crystal, first, second), with_vacancy(crystal, second, first)]
    for end in ends:
        end.calc = calculator
        BFGS(end, logfile=None).run(fmax=0.05 if arguments.quick else 0.01, steps=200)

    images = [ends[0], *(ends[0].copy() for _ in range(3 if arguments.quick else arguments.images)), ends[1]]
    for image in images[1:-1]:
        image.calc = calculator
    band = NEB(images, climb=True, method="improvedtangent", allow_shared_calculator=True)
    band.interpolate(mic=True)
    FIRE(band, logfile=None).run(fmax=0.15 if arguments.quick else 0.03, steps=300)
    barrier, change = NEBTools(images).get_barrier()
    print(f"{len(ends[0])} atoms: barrier {barrier:.3f} eV (measured: about 0.7 eV), ends differ by {change:.4f} eV")

    fit = fit_images(images)
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    axes.plot(fit.fit_path, fit.fit_energies, color="C0")
    axes.plot(fit.path, fit.energies, "o", color="C0", label=f"barrier {barrier:.2f} eV")
    axes.set(xlabel="path, Å", ylabel="energy, eV", title=f"vacancy hop in Cu, {len(ends[0])} atoms")
    axes.legend()
    path = Path("06_vacancy_hop.png")
    figure.savefig(path, dpi=150)
    print(f"Picture: {path.resolve()}")


if __name__ == "__main__":
    main()
