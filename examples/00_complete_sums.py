"""Why complete sums: what an atom of rock salt feels, from neighbours within a radius and from the whole crystal.

Run `python examples/00_complete_sums.py`; saves 00_complete_sums.png in the current folder.
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from ase.build import bulk

from ase_potnet.lattice import Coulomb, London, site_sums

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import Circle

LATTICE = 5.64  # Å
COULOMB_CONSTANT = 14.399645  # e^2 / (4 pi epsilon_0) in eV Å


def shells(largest: float) -> tuple[np.ndarray, np.ndarray]:
    """Distances of the atoms around a sodium atom (Å), ascending, and their charges."""
    n = int(np.ceil(2 * largest / LATTICE))
    places = np.stack(np.meshgrid(*[np.arange(-n, n + 1)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    distances = np.linalg.norm(places, axis=1) * LATTICE / 2
    charges = np.where(places.sum(axis=1) % 2 == 0, 1.0, -1.0)
    near = (distances > 0) & (distances <= largest)
    order = np.argsort(distances[near], kind="stable")
    return distances[near][order], charges[near][order]


def complete() -> tuple[float, float]:
    """Coulomb potential (V) and sum of 1/r^6 (1/Å^6) at a sodium atom, over all images."""
    atoms = bulk("NaCl", "rocksalt", a=LATTICE)
    positions, cell = torch.tensor(atoms.positions), torch.tensor(atoms.cell.array)
    charges = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    coulomb = site_sums(charges, positions, cell, Coulomb(), tolerance=1e-12)
    london = site_sums(torch.ones_like(charges), positions, cell, London(), tolerance=1e-12)
    return COULOMB_CONSTANT * float(coulomb[0, 0, 0]), float(london[0, 0, 0])


def draw_crystal(axes: plt.Axes) -> None:
    """A layer of the crystal with the cut-off of a local network."""
    n = 5
    places = np.stack(np.meshgrid(np.arange(-n, n + 1), np.arange(-n, n + 1)), axis=-1).reshape(-1, 2)
    even = places.sum(axis=1) % 2 == 0
    for part, colour, name in ((even, "C0", "Na"), (~even, "C1", "Cl")):
        axes.scatter(*(places[part] * LATTICE / 2).T, color=colour, s=40, label=name, zorder=2)
    axes.add_patch(Circle((0, 0), 5.0, color="0.85", zorder=0, label="local cut-off, 5 Å"))
    for place in places:
        if place.any():
            axes.plot(*(np.outer((0, 1), place) * LATTICE / 2).T, color="C0", linewidth=0.3, alpha=0.6, zorder=1)
    limit = (n - 0.5) * LATTICE / 2
    axes.set(xlim=(-limit, limit), ylim=(-limit, limit), xticks=[], yticks=[], aspect="equal",
             title="every pair, all its images")  # fmt: skip
    axes.legend(loc="upper right", fontsize=8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="neighbours within 25 Å")
    largest = 25.0 if parser.parse_args().quick else 60.0
    distances, charges = shells(largest)
    coulomb, london = complete()
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained")
    draw_crystal(left)
    sums = COULOMB_CONSTANT * np.cumsum(charges / distances)
    last = np.append(np.diff(distances) > 1e-6, True)  # whole shells
    middle.plot(distances[last], sums[last], color="0.6", linewidth=0.8, label="neighbours within a radius")
    middle.axhline(coulomb, color="C3", label=f"complete sum, {coulomb:.4f} V")
    middle.set(xlabel="radius, Å", ylabel="potential at Na, V", title="Coulomb: no radius is large enough")
    middle.legend(fontsize=8, loc="upper left")
    missing = 1 - np.cumsum(distances**-6.0) / london
    right.semilogy(distances[last], missing[last], color="0.6")
    right.set(xlabel="radius, Å", ylabel="missing part of the sum", title="London 1/r$^6$: a tail remains")
    path = Path("00_complete_sums.png")
    figure.savefig(path, dpi=150)
    print(f"potential at Na: {coulomb:.6f} V; Madelung constant {-coulomb * LATTICE / 2 / COULOMB_CONSTANT:.6f}")
    low, high = sums[last][-50:].min(), sums[last][-50:].max()
    print(f"neighbours within {largest:.0f} Å give between {low:.1f} and {high:.1f} V")
    print(f"Picture: {path.resolve()}")


if __name__ == "__main__":
    main()
