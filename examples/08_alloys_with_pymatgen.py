"""Mixing copper and gold with pymatgen: ordered compounds and supercells with the atoms at random.

Run `python examples/08_alloys_with_pymatgen.py`; saves 08_alloys_with_pymatgen.png in the current folder.
Needs the packaged weights, or `--model FOLDER`, and `pip install "ase-potnet[pymatgen]"`.
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
from pymatgen.core import Lattice, Structure
from rich.progress import track

from ase_potnet import PotNetCalculator

mpl.use("Agg")
import matplotlib.pyplot as plt

LATTICE = {"Cu": 3.615, "Au": 4.078}  # Å
FCC = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
ORDERED = {"Cu": "Cu Cu Cu Cu", "Cu$_3$Au": "Au Cu Cu Cu", "CuAu": "Au Cu Cu Au", "CuAu$_3$": "Cu Au Au Au",
           "Au": "Au Au Au Au"}  # fmt: skip


def structure(symbols: list[str], repeat: int = 1) -> Structure:
    """Face-centred cubic at the lattice constant that Vegard's rule gives."""
    a = float(np.mean([LATTICE[symbol] for symbol in symbols]))
    cell = Structure(Lattice.cubic(a), ["Cu"] * 4, FCC) * repeat
    for place, symbol in enumerate(symbols):
        cell[place] = symbol
    return cell


def energy(crystal: Structure, calculator: PotNetCalculator) -> float:
    """Of the relaxed crystal, eV an atom."""
    relaxed = crystal.relax(calculator=calculator, fmax=0.02)
    return relaxed.calculate(calculator=calculator).results["energy"] / len(relaxed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="default", help="packaged model or model folder")
    parser.add_argument("--repeat", type=int, default=2, help="cells along each axis of the random supercells")
    parser.add_argument("--quick", action="store_true", help="random cells of four atoms")
    arguments = parser.parse_args()
    calculator = PotNetCalculator(arguments.model)

    ordered = {name: energy(structure(symbols.split()), calculator) for name, symbols in ORDERED.items()}
    parts = {name: symbols.count("Au") / 4 for name, symbols in ORDERED.items()}

    def mixing(part: float, value: float) -> float:
        return 1e3 * (value - (1 - part) * ordered["Cu"] - part * ordered["Au"])

    for name, part in parts.items():
        print(f"{name:10} {mixing(part, ordered[name]):7.1f} meV/atom")
    repeat = 1 if arguments.quick else arguments.repeat
    rng = np.random.default_rng(0)
    n_atoms = 4 * repeat**3
    counts = [n_atoms // 4] if arguments.quick else [n_atoms // 4, n_atoms // 2, 3 * n_atoms // 4]
    random = []
    for count in track(counts, "random supercells", transient=True):
        symbols = rng.permutation(["Au"] * count + ["Cu"] * (n_atoms - count)).tolist()
        part = count / n_atoms
        random.append((part, mixing(part, energy(structure(symbols, repeat), calculator))))
        print(f"random, {part:.0%} Au: {random[-1][1]:7.1f} meV/atom")

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    axes.axhline(0, color="0.7", linewidth=0.8)
    axes.plot(list(parts.values()), [mixing(parts[name], ordered[name]) for name in parts], "o-", label="ordered")
    axes.plot(*np.array(random).T, "s", label=f"random, {n_atoms} atoms")
    axes.set(xlabel="part of gold", ylabel="energy of mixing, meV/atom", title="Cu-Au")
    axes.legend()
    path = Path("08_alloys_with_pymatgen.png")
    figure.savefig(path, dpi=150)
    print(f"Picture: {path.resolve()}")


if __name__ == "__main__":
    main()
