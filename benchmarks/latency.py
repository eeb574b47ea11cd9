"""Time of one step of molecular dynamics: `OMP_NUM_THREADS=N python benchmarks/latency.py [--threads N] [--compile]`.

Prints a Markdown table: milliseconds for energy, forces and stress at new positions of the same atoms in the same cell,
`PotNetCalculator` and ASE included. The calculators take turns, so that a busy machine slows all of them alike.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from ase.spacegroup import crystal

from ase_potnet import PotNetCalculator

SIZES = {"10": 60, "corundum": 60, "96": 16, "960": 4}  # repeats


def system(name: str) -> Atoms:
    """Rock salt of so many atoms, or the 10 atoms of corundum."""
    if name == "corundum":
        sites = [(0, 0, 0.352), (0.306, 0, 0.25)]
        cell = [4.76, 4.76, 12.99, 90, 90, 120]
        return crystal(("Al", "O"), sites, spacegroup=167, cellpar=cell, primitive_cell=True)
    if name == "10":
        return bulk("NaCl", "rocksalt", a=5.6).repeat((5, 1, 1))
    repeats = {"8": (1, 1, 1), "96": (3, 2, 2), "960": (6, 5, 4)}[name]
    return bulk("NaCl", "rocksalt", a=5.6, cubic=True).repeat(repeats)


def times(atoms: Atoms, calculators: dict[str, PotNetCalculator], repeats: int) -> dict[str, np.ndarray]:
    """Milliseconds of every step. (repeats,) for each calculator"""
    rng = np.random.default_rng(0)
    found: dict[str, list[float]] = {name: [] for name in calculators}
    moving = {name: atoms.copy() for name in calculators}
    for name, calculator in calculators.items():
        moving[name].calc = calculator
    for step in range(repeats + 1):
        shift = rng.normal(scale=0.02, size=atoms.positions.shape)
        for name, copy in moving.items():
            copy.positions = atoms.positions + shift
            start = time.perf_counter()
            copy.get_forces()
            if step:
                found[name].append(1e3 * (time.perf_counter() - start))
    return {name: np.array(values) for name, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compile", action="store_true", help="the compiled function, too")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtypes", nargs="+", default=["float64", "float32"])
    parser.add_argument("--systems", nargs="+", default=list(SIZES), choices=[*SIZES, "8"])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    calculators = {}
    for dtype in options.dtypes:
        calculators[dtype] = PotNetCalculator(dtype=dtype)
        if options.compile:
            calculators[f"{dtype}, compiled"] = PotNetCalculator(dtype=dtype, compile=True)
    print("| system | atoms | " + " | ".join(f"{name}: min, median, ms" for name in calculators) + " |")
    print("|" + "---|" * (2 + len(calculators)))
    for name in options.systems:
        atoms = system(name)
        measured = times(atoms, calculators, SIZES.get(name, 60))
        cells = [f"{values.min():.1f}, {np.median(values):.1f}" for values in measured.values()]
        print(f"| {'corundum' if name == 'corundum' else 'rock salt'} | {len(atoms)} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
