"""Time to build graphs, on one thread: `python benchmarks/graphs.py [--quick]`.

Prints a Markdown table: milliseconds a structure for reading ASE Atoms, local edges within 5 Å, the 16 nearest
neighbours, and complete edges (Coulomb + London + Pauli). Structures are 10 atoms of a triclinic crystal, distorted, or
the real crystals of tests/data. The columns are measured in turn, so that a busy machine slows all of them alike.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable

import numpy as np
import torch
from ase import Atoms
from ase.io import read
from lattice import POTENTIALS, SAMPLE, distortions

from ase_potnet.graph import batch_structures, complete_edges, local_edges, nearest_edges
from ase_potnet.lattice.plan import forget_plans

CUTOFF = 5.0


def crystals(n: int, batch: int) -> list[Atoms]:
    """Distortions of one crystal of n atoms."""
    positions, cells = distortions(n, batch)
    return [
        Atoms(numbers=[8] * n, positions=p, cell=c, pbc=True)
        for p, c in zip(positions.numpy(), cells.numpy(), strict=True)
    ]


def milliseconds(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median processor time of each call, the calls taking turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(repeats + 1):
        for name, call in calls.items():
            forget_plans()
            start = time.process_time()
            call()
            if repeat:  # the first one warms up
                times[name].append(1e3 * (time.process_time() - start))
    return {name: float(np.median(values)) for name, values in times.items()}


def row(name: str, structures: list[Atoms], dtype: torch.dtype, repeats: int) -> str:
    """One line of the table."""
    atoms = batch_structures(structures, dtype=dtype)
    tolerances = (1e-4, 1e-6, 1e-8) if dtype == torch.float64 else (1e-4,)
    calls: dict[str, Callable[[], object]] = {
        "read": lambda: batch_structures(structures, dtype=dtype),
        "local": lambda: local_edges(atoms, CUTOFF),
        "nearest": lambda: nearest_edges(atoms, 16),
        **{f"{tol:.0e}": (lambda tol=tol: complete_edges(atoms, POTENTIALS, tol)) for tol in tolerances},
    }
    found = {name: value / len(structures) for name, value in milliseconds(calls, repeats).items()}
    found |= {"all": found["read"] + found["local"] + found["1e-04"]}
    columns = ("read", "local", "nearest", "1e-04", "1e-06", "1e-08", "all")
    cells = [f"{found[column]:.3f}" if column in found else "" for column in columns]
    kind = str(dtype).removeprefix("torch.")
    return f"| {name} | {len(atoms.numbers) / len(structures):.1f} | {len(structures)} | {kind} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few repeats")
    repeats = 3 if parser.parse_args().quick else 15
    torch.set_num_threads(1)
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, processor time of one thread")
    print("in ms a structure: reading Atoms, edges within 5 Å, to the 16 nearest, sums by tolerance\n")
    print("| structures | atoms | batch | dtype | read | 5 Å | 16 nearest | 1e-4 | 1e-6 | 1e-8 | read + 5 Å + 1e-4 |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for dtype in (torch.float64, torch.float32):
        for n, batch in ((10, 64), (10, 1), (40, 16)):
            print(row("distorted", crystals(n, batch), dtype, repeats))
        print(row("real", read(SAMPLE, ":64"), dtype, repeats))


if __name__ == "__main__":
    main()
