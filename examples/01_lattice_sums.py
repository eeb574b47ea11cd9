"""Sum the potentials of real crystals: Madelung constants, error against tolerance, time against size.

Run `python examples/01_lattice_sums.py`; saves 01_lattice_sums.png in the current folder.
"""

import sys
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from ase.spacegroup import crystal

from ase_potnet.lattice import Coulomb, London, Pauli, pair_sums, site_sums

QUICK = "--quick" in sys.argv
POTENTIALS = (Coulomb(), London(), Pauli(alpha=3.0))
COULOMB_CONSTANT = 14.3996454784255  # e^2 / (4 pi epsilon_0) in eV Å


def tensors(atoms: Atoms) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(atoms.positions), torch.tensor(atoms.cell.array)


def rutile() -> Atoms:
    sites = [(0, 0, 0), (0.3053, 0.3053, 0)]
    return crystal(["Ti", "O"], sites, spacegroup=136, cellpar=[4.594, 4.594, 2.959, 90, 90, 90])


def madelung_energies() -> None:
    """Electrostatic energy of formal charges, from site potentials."""
    perovskite = crystal(
        ["Sr", "Ti", "O"], [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0)], spacegroup=221, cellpar=[3.905] * 3 + [90] * 3
    )
    charges = {"Na": 1, "Cl": -1, "Mg": 2, "O": -2, "Ti": 4, "Sr": 2}
    print("Electrostatic energy of formal charges")
    for name, atoms in (
        ("NaCl", bulk("NaCl", "rocksalt", a=5.64)),
        ("MgO", bulk("MgO", "rocksalt", a=4.212)),
        ("TiO2 (rutile)", rutile()),
        ("SrTiO3", perovskite),
    ):
        q = torch.tensor([[charges[symbol]] for symbol in atoms.symbols], dtype=torch.float64)
        potential = site_sums(q, *tensors(atoms), Coulomb(), tolerance=1e-12)[:, 0, 0]
        energy = 0.5 * COULOMB_CONSTANT * float(q[:, 0] @ potential) / len(atoms)
        print(f"  {name:14s} {energy:10.4f} eV/atom")


def error_against_tolerance() -> tuple[list[float], np.ndarray, np.ndarray]:
    """Measured error and proven bound of every potential, rutile in a skewed cell."""
    atoms = rutile()
    atoms.cell = np.array([[1, 0, 0], [2, 1, 0], [-1, 3, 1]]) @ atoms.cell
    positions, cell = tensors(atoms)
    exact = pair_sums(positions, cell, POTENTIALS, tolerance=1e-13)
    tolerances = [10.0**-k for k in range(2, 12)]
    errors, bounds = [], []
    for tolerance in tolerances:
        sums, bound = pair_sums(positions, cell, POTENTIALS, tolerance=tolerance, return_bound=True)
        errors.append((sums - exact).abs().amax((0, 1)).numpy())
        bounds.append(bound.numpy())
    return tolerances, np.array(errors), np.array(bounds)


def time_against_size() -> tuple[list[int], list[float], list[float]]:
    """Seconds of all pairs and of all sites, supercells of NaCl."""
    sizes, pairs, sites = [], [], []
    for repeats in ((1, 1, 1), (2, 1, 1), (2, 2, 1), (2, 2, 2), (3, 2, 2), (3, 3, 3))[: 4 if QUICK else 6]:
        atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True).repeat(repeats)
        arguments = tensors(atoms)
        q = torch.ones(len(atoms), 1, dtype=torch.float64)
        sizes.append(len(atoms))
        pairs.append(median_time(lambda: pair_sums(*arguments, POTENTIALS)))  # noqa: B023
        sites.append(median_time(lambda: site_sums(q, *arguments, POTENTIALS)))  # noqa: B023
    return sizes, pairs, sites


def median_time(call) -> float:
    call()
    times = []
    for _ in range(3):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def main() -> None:
    madelung_energies()
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    tolerances, errors, bounds = error_against_tolerance()
    for k, potential in enumerate(POTENTIALS):
        left.loglog(tolerances, errors[:, k] + 1e-17, "o-", color=f"C{k}", label=f"{potential!r}: error")
        left.loglog(tolerances, bounds[:, k], "--", color=f"C{k}", label="proven bound")
    left.loglog(tolerances, tolerances, "k:", label="tolerance")
    left.set(xlabel="tolerance", ylabel="largest error of a pair sum", title="rutile TiO$_2$ in a skewed cell")
    left.legend(fontsize=8)
    sizes, pairs, sites = time_against_size()
    right.loglog(sizes, np.array(pairs) * 1e3, "o-", label="pair_sums, all pairs")
    right.loglog(sizes, np.array(sites) * 1e3, "s-", label="site_sums, all atoms")
    right.set(xlabel="atoms", ylabel="ms", title="NaCl supercells, three potentials, 1e-8")
    right.legend()
    path = Path("01_lattice_sums.png")
    figure.savefig(path, dpi=150)
    print(f"Picture: {path.resolve()}")


if __name__ == "__main__":
    main()
