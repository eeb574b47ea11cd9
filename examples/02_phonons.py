"""Phonons of rock salt: relax, displace, and draw the bands and the density of states.

Run `python examples/02_phonons.py`; saves 02_phonons.png in the current folder. Needs the packaged weights, or
`--model FOLDER`, and `pip install "ase-potnet[phonons]"`.
"""

import argparse
from pathlib import Path

import numpy as np
from ase.build import bulk

from ase_potnet.integrations import gruneisen, phonons
from ase_potnet.integrations.phonon_files import plot_phonons

# Born charges (e) and dielectric constant of NaCl from DFT, for the splitting of the optical modes near Γ
NAC = {"born": {"Na": 1.087, "Cl": -1.087}, "dielectric": 2.435}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="default", help="packaged model or model folder")
    parser.add_argument("--quick", action="store_true", help="small supercell, coarse mesh")
    arguments = parser.parse_args()
    atoms = bulk("NaCl", "rocksalt", a=5.64)
    options = {"supercell": 5.0, "mesh": (8, 8, 8)} if arguments.quick else {}

    ph = phonons(atoms, arguments.model, nac=NAC, **options)
    thermal = ph.thermal_properties
    room = int(np.argmin(np.abs(thermal.temperatures - 300)))
    print(f"lattice constant {np.cbrt(4 * ph.primitive.volume):.3f} Å, supercell of {len(ph.supercell)} atoms")
    print(f"at 300 K: heat capacity {thermal.heat_capacity[room]:.2f} J/K/mol, free energy "
          f"{thermal.free_energy[room]:.3f} kJ/mol")  # fmt: skip
    if not arguments.quick:
        _, weights, frequencies, _, gamma = gruneisen(atoms, arguments.model, nac=NAC, mesh=(10, 10, 10)).get_mesh()
        real = frequencies > 0.1
        mean = np.average(gamma[real], weights=np.broadcast_to(weights[:, None], gamma.shape)[real])
        print(f"mean Grüneisen parameter {mean:.2f}")

    figure = plot_phonons(ph)
    path = Path("02_phonons.png")
    figure.savefig(path, dpi=150)
    print(f"Picture: {path.resolve()}")


if __name__ == "__main__":
    main()
