"""Rock salt at constant temperature and pressure: Langevin dynamics of atoms and cell.

Run `python examples/07_constant_pressure.py`; saves 07_constant_pressure.png in the current folder. Needs the packaged
weights, or `--model FOLDER`, and ASE 3.27.
"""

import argparse
import warnings
from pathlib import Path

import matplotlib as mpl
import numpy as np
from ase import units
from ase.build import bulk
from ase.md.langevinbaoab import LangevinBAOAB
from rich.progress import track

from ase_potnet import PotNetCalculator

mpl.use("Agg")
import matplotlib.pyplot as plt


def run(calculator: PotNetCalculator, temperature: float, repeat: int, steps: int) -> np.ndarray:
    """Time (ps), temperature (K) and lattice constant (Å), a row every ten steps of 2 fs."""
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True).repeat(repeat)
    atoms.calc = calculator
    rng = np.random.default_rng(0)
    spread = np.sqrt(units.kB * temperature * atoms.get_masses())
    atoms.set_momenta(rng.normal(size=(len(atoms), 3)) * spread[:, None])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Using heuristic P_mass")
        dynamics = LangevinBAOAB(
            atoms, 2 * units.fs, temperature_K=temperature, externalstress=-1.01325 * units.bar, hydrostatic=True,
            T_tau=100 * units.fs, P_tau=500 * units.fs, rng=rng,
        )  # fmt: skip
    rows = []
    for step in track(range(0, steps, 10), f"{temperature:.0f} K", transient=True):
        dynamics.run(10)
        rows.append((0.002 * (step + 10), atoms.get_temperature(), np.cbrt(atoms.get_volume()) / repeat))
    return np.array(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="default", help="packaged model or model folder")
    parser.add_argument("--repeat", type=int, default=2, help="conventional cells along each axis")
    parser.add_argument("--steps", type=int, default=5000, help="of 2 fs")
    parser.add_argument("--quick", action="store_true", help="one cell of 8 atoms, 0.1 ps")
    arguments = parser.parse_args()
    calculator = PotNetCalculator(arguments.model, dtype="float32")  # precise enough for dynamics, and faster
    repeat, steps = (1, 50) if arguments.quick else (arguments.repeat, arguments.steps)

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for colour, temperature in enumerate((300.0, 600.0)):
        rows = run(calculator, temperature, repeat, steps)
        late = rows[len(rows) // 2 :]
        print(
            f"{temperature:.0f} K: {late[:, 1].mean():.0f} K, lattice constant {late[:, 2].mean():.3f} Å (second half)"
        )
        left.plot(rows[:, 0], rows[:, 1], color=f"C{colour}", label=f"{temperature:.0f} K")
        right.plot(rows[:, 0], rows[:, 2], color=f"C{colour}", label=f"{late[:, 2].mean():.3f} Å")
    left.set(xlabel="time, ps", ylabel="temperature, K", title=f"NaCl, {8 * repeat**3} atoms, 1 bar")
    right.set(xlabel="time, ps", ylabel="lattice constant, Å")
    left.legend()
    right.legend(title="mean, second half")
    path = Path("07_constant_pressure.png")
    figure.savefig(path, dpi=150)
    print(f"Picture: {path.resolve()}")


if __name__ == "__main__":
    main()
