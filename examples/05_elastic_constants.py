"""Elastic constants with matcalc, beside measured moduli.

Run `python examples/05_elastic_constants.py`; saves 05_elastic_constants.png in the current folder.
Needs the packaged weights, or `--model FOLDER`, and `pip install matcalc`.
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.spacegroup import crystal
from matcalc import ElasticityCalc
from rich.progress import track

from ase_potnet import PotNetCalculator

mpl.use("Agg")
import matplotlib.pyplot as plt


def rutile() -> Atoms:
    sites = [(0, 0, 0), (0.305, 0.305, 0)]
    return crystal(["Ti", "O"], sites, spacegroup=136, cellpar=[4.594, 4.594, 2.959, 90, 90, 90])


def perovskite() -> Atoms:
    places = [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)]
    return Atoms("SrTiO3", scaled_positions=places, cell=[3.905] * 3, pbc=True)


# with measured bulk and shear moduli in GPa
CRYSTALS = {
    "Cu": (bulk("Cu", "fcc", a=3.615), 137, 47),
    "NaCl": (bulk("NaCl", "rocksalt", a=5.64), 25, 15),
    "Si": (bulk("Si", "diamond", a=5.431), 98, 67),
    "MgO": (bulk("MgO", "rocksalt", a=4.212), 163, 131),
    "TiO$_2$": (rutile(), 211, 112),
    "SrTiO$_3$": (perovskite(), 174, 117),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="default", help="packaged model or model folder")
    parser.add_argument("--quick", action="store_true", help="two crystals, two strains")
    arguments = parser.parse_args()
    strains = (-0.005, 0.005) if arguments.quick else (-0.01, -0.005, 0.005, 0.01)
    elasticity = ElasticityCalc(
        PotNetCalculator(arguments.model),
        norm_strains=strains,
        shear_strains=strains,
        fmax=0.01,
        relax_deformed_structures=not arguments.quick,  # Si and TiO2 have atoms that symmetry does not hold
        units_GPa=True,
        r2_min=-1,  # of constants that are zero by symmetry, R² means nothing
    )
    names = list(CRYSTALS)[: 2 if arguments.quick else None]
    moduli = []
    for name in track(names, "elastic constants", transient=True):
        found = elasticity.calc(CRYSTALS[name][0])
        tensor = found["elastic_tensor"].voigt
        moduli.append((found["bulk_modulus_vrh"], found["shear_modulus_vrh"]))
        print(f"{name:10} C11 {tensor[0, 0]:4.0f}  C12 {tensor[0, 1]:4.0f}  C44 {tensor[3, 3]:4.0f}  "
              f"bulk {moduli[-1][0]:4.0f}  shear {moduli[-1][1]:4.0f} GPa")  # fmt: skip

    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    places = np.arange(len(names))
    for k, (ax, title) in enumerate(zip(axes, ("bulk modulus, GPa", "shear modulus, GPa"), strict=True)):
        ax.bar(places - 0.2, [CRYSTALS[name][1 + k] for name in names], 0.4, label="measured", color="0.7")
        ax.bar(places + 0.2, [pair[k] for pair in moduli], 0.4, label="potential")
        ax.set_xticks(places, names)
        ax.set(title=title)
    axes[0].legend()
    path = Path("05_elastic_constants.png")
    figure.savefig(path, dpi=150)
    print(f"Picture: {path.resolve()}")


if __name__ == "__main__":
    main()
