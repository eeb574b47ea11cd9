"""Time and accuracy of the lattice sums, on one thread: `python benchmarks/lattice.py [--quick] [--only pairs]`.

Prints Markdown tables, medians of the times, fastest in brackets: on a shared machine the median measures the
neighbours, too. The published implementation of PotNet (C/Cython, Lin et al. 2023) is represented by the time
measured for its Coulomb + London + Pauli sums on a 2.45 GHz AMD EPYC core; torch-pme runs here, in turn with ours.
"""

from __future__ import annotations

import argparse
import math
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from ase.io import read
from peers import ewald_call, smearings
from processes import in_fresh_process
from torch import Tensor

from ase_potnet.lattice import Coulomb, London, Pauli, pair_sums, site_sums
from ase_potnet.lattice.plan import forget_plans

POTENTIALS = (Coulomb(), London(), Pauli(3.0))
PUBLISHED = {10: 80e-3, 20: 275e-3, 40: 1.1, 80: 4.7}  # seconds a crystal, three potentials
SAMPLE = Path(__file__).parent.parent / "tests" / "data" / "mp_sample.extxyz"
DOUBLE = torch.float64


class Times(NamedTuple):
    """Seconds."""

    median: float
    fastest: float

    def milliseconds(self, count: int = 1, digits: int = 2) -> str:
        """A cell of a table: of one of ``count`` things done together."""
        return f"{self.median / count * 1e3:.{digits}f} ({self.fastest / count * 1e3:.{digits}f})"

    def times_published(self, published: float) -> str:
        return f"{published / self.median:.0f} ({published / self.fastest:.0f})"


def measure(call: Callable[[], object], repeats: int, *, planning: bool = True) -> Times:
    """Wall time after one warm-up call; with ``planning`` the plan of the sums is made anew each time."""
    call()
    times = []
    for _ in range(repeats):
        if planning:
            forget_plans()
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return Times(float(np.median(times)), min(times))


def crystal(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """n atoms on a jittered grid of a triclinic cell, 16 Å^3 an atom."""
    side = math.ceil(n ** (1 / 3))
    grid = torch.cartesian_prod(*[torch.arange(side, dtype=DOUBLE)] * 3)
    grid = grid[torch.randperm(len(grid), generator=generator)[:n]] / side
    length = (16.0 * n) ** (1 / 3)
    cell = length * (torch.eye(3, dtype=DOUBLE) + 0.15 * torch.randn(3, 3, dtype=DOUBLE, generator=generator))
    jitter = 0.1 * torch.randn(n, 3, dtype=DOUBLE, generator=generator)
    return grid @ cell + jitter, cell


def distortions(n: int, batch: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n)
    positions, cell = crystal(n, generator)
    strain = torch.eye(3, dtype=DOUBLE) + 0.01 * torch.randn(batch, 3, 3, dtype=DOUBLE, generator=generator)
    moved = positions + 0.05 * torch.randn(batch, n, 3, dtype=DOUBLE, generator=generator)
    return moved @ strain, cell @ strain


def gradient_call(positions: Tensor, cell: Tensor, tolerance: float, batch: Tensor | None = None) -> object:
    """Pair sums and the gradient of their total with respect to positions and strain."""
    moved = positions.clone().requires_grad_()
    strain = torch.zeros_like(cell, requires_grad=True)
    deform = torch.eye(3, dtype=DOUBLE) + strain
    if batch is None:
        inputs = (moved @ deform, cell @ deform)
    else:
        inputs = ((moved[:, None] @ deform[batch])[:, 0], cell @ deform)
    pair_sums(*inputs, POTENTIALS, tolerance=tolerance, batch=batch).sum().backward()
    return moved.grad, strain.grad


def pair_table(repeats: int) -> dict[int, float]:
    """Times of batches of distorted crystals; returns seconds a crystal at 1e-8 by number of atoms."""
    print("\n### Pair sums, Coulomb + London + Pauli, batches of distorted crystals: median (fastest)\n")
    print("| atoms | crystals | tolerance | ms a crystal | × published | with gradients: × published |")
    print("|---|---|---|---|---|---|")
    per_crystal = {}
    cases = [(n, 640 // n, tolerance) for n in PUBLISHED for tolerance in (1e-6, 1e-8, 1e-12)]
    for n, batch, tolerance in [*cases, (10, 256, 1e-8), (20, 128, 1e-8)]:
        inputs, published = distortions(n, batch), PUBLISHED[n] * batch
        t = measure(partial(pair_sums, *inputs, POTENTIALS, tolerance=tolerance), repeats)
        g = measure(partial(gradient_call, *inputs, tolerance), repeats)
        if tolerance == 1e-8:
            per_crystal.setdefault(n, t.median / batch)
        print(
            f"| {n} | {batch} | {tolerance:.0e} | {t.milliseconds(batch, 3)} | {t.times_published(published)} "
            f"| {g.times_published(published)} |"
        )
    positions, cell = distortions(10, 1)
    print("\nOne crystal of 10 atoms alone, tolerance 1e-8, ms: ", end="")
    for name, planning in (("in a new cell", True), ("in the same cell", False)):
        t = measure(lambda: pair_sums(positions[0], cell[0], POTENTIALS), 10 * repeats, planning=planning)
        g = measure(lambda: gradient_call(positions[0], cell[0], 1e-8), 10 * repeats, planning=planning)
        print(f"{name} {t.milliseconds()}, with gradients {g.milliseconds()}; ", end="")
    print()
    return per_crystal


def mixed_table(per_crystal: dict[int, float], repeats: int) -> None:
    """Real crystals of all sizes in one call, against the cost expected from the batches above."""
    crystals = read(SAMPLE, ":")
    positions = torch.tensor(np.concatenate([atoms.positions for atoms in crystals]))
    cell = torch.tensor(np.stack([atoms.cell.array for atoms in crystals]))
    batch = torch.repeat_interleave(torch.tensor([len(atoms) for atoms in crystals]))
    t = measure(lambda: pair_sums(positions, cell, POTENTIALS, batch=batch), repeats)
    g = measure(lambda: gradient_call(positions, cell, 1e-8, batch), repeats)
    sizes = np.array([len(atoms) for atoms in crystals])
    logs = np.interp(np.log(sizes), np.log(list(per_crystal)), np.log(list(per_crystal.values())))
    expected = np.exp(logs).sum()
    published = sum(250e-6 * 3 * n**2 for n in sizes)
    print(f"\n### One mixed batch: {len(crystals)} real crystals of {sizes.min()} to {sizes.max()} atoms, 1e-8\n")
    print(f"{t.milliseconds()} ms, with gradients {g.milliseconds()} ms: {t.times_published(published)} and ", end="")
    print(f"{g.times_published(published)} × published; {t.median / expected:.2f} × the uniform batches above.")


def site_table(repeats: int, sizes: tuple[int, ...]) -> None:
    print("\n### Site sums, Coulomb, against torch-pme's EwaldCalculator at its best splitting\n")
    print("Ours at the largest tolerance that keeps its error below that of torch-pme.\n")
    print("| atoms | channels | accuracy | tolerance | ours, ms | error | torch-pme, ms | error | ratio | same cell |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for tolerance, reach in ((1e-6, 3.4 * math.sqrt(2)), (1e-12, 5.2 * math.sqrt(2))):
        for channels in (1, 64):
            times = [site_row(n, channels, tolerance, reach, repeats) for n in sizes]
            half = (len(sizes) - 1) // 2
            growth = math.log(times[-1] / times[half]) / math.log(sizes[-1] / sizes[half])
            print(f"| | {channels} | {tolerance:.0e} | above {sizes[half]} atoms as N^{growth:.2f} | | | | | | |")


def site_row(n: int, channels: int, tolerance: float, reach: float, repeats: int) -> float:
    """One row of the table; returns our seconds."""
    positions, cell = crystal(n, torch.Generator().manual_seed(n))
    sources = torch.randn(n, channels, dtype=DOUBLE, generator=torch.Generator().manual_seed(1))
    sources = sources - sources.mean(0)
    exact = site_sums(sources, positions, cell, Coulomb(), tolerance=1e-13)[..., 0]

    def error(value: Tensor) -> float:
        return float((value - exact).abs().max() / sources.abs().max())

    def ours_at(tolerance: float) -> Tensor:
        return site_sums(sources, positions, cell, Coulomb(), tolerance=tolerance)[..., 0]

    theirs = []
    for smearing in smearings(n, float(cell.det().abs())):
        peer = ewald_call(sources, positions, cell, 1, smearing, reach)
        if error(peer()) < 3 * tolerance:
            theirs.append((measure(peer, max(1, repeats // 3)).fastest, smearing))
    peer = ewald_call(sources, positions, cell, 1, min(theirs)[1], reach)
    reached = error(peer())
    looser = (factor * tolerance for factor in (100, 30, 10, 3))
    asked = next((t for t in looser if error(ours_at(t)) <= reached), tolerance)
    call = partial(ours_at, asked)
    ours = measure(call, repeats)
    best = measure(peer, repeats)
    kept = measure(call, repeats, planning=False)
    print(
        f"| {n} | {channels} | {tolerance:.0e} | {asked:.0e} | {ours.milliseconds()} | {error(call()):.1e} "
        f"| {best.milliseconds()} | {reached:.1e} | {best.median / ours.median:.1f} | {best.median / kept.median:.1f} |"
    )
    return ours.median


def bound_table(n_crystals: int) -> None:
    print("\n### Proven bound over measured error, random triclinic crystals of 6 atoms\n")
    print("| tolerance | largest error | error ≤ bound | bound / error: 10 %, median, 90 % |")
    print("|---|---|---|---|")
    potentials = (Coulomb(), London(), Pauli(3.0))
    for tolerance in (1e-4, 1e-6, 1e-8):
        ratios, largest, held = [], 0.0, True
        for seed in range(n_crystals):
            positions, cell = crystal(6, torch.Generator().manual_seed(seed))
            exact = pair_sums(positions, cell, potentials, tolerance=1e-13)
            sums, bound = pair_sums(positions, cell, potentials, tolerance=tolerance, return_bound=True)
            error = (sums - exact).abs().amax((0, 1))
            held &= bool((error <= bound).all())
            largest = max(largest, float(error.max()))
            ratios += (bound / error.clamp(min=1e-16)).tolist()
        low, middle, high = np.percentile(ratios, (10, 50, 90))
        always = "always" if held else "NO"
        print(f"| {tolerance:.0e} | {largest:.1e} | {always} | {low:.1f}, {middle:.1f}, {high:.1f} |")


def memory(n: int) -> None:
    """Peak memory of a process that does nothing else."""
    elapsed, peak = in_fresh_process(_site_sums_alone, n)
    print(f"\n`site_sums` with field, {n} atoms, three potentials, 1e-8: {elapsed:.2f} s, ", end="")
    print(f"peak memory of the whole process {peak:.2f} GiB.")


def _site_sums_alone(n: int) -> float:
    torch.set_num_threads(1)
    positions, cell = crystal(n, torch.Generator().manual_seed(n))
    sources = torch.randn(n, 1, dtype=DOUBLE)
    start = time.perf_counter()
    site_sums(sources, positions, cell, POTENTIALS, tolerance=1e-8, field=True)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer repeats and smaller systems")
    parts = ("memory", "pairs", "sites", "bounds")
    parser.add_argument("--only", choices=parts, action="append", help="only these parts, may be repeated")
    arguments = parser.parse_args()
    quick, wanted = arguments.quick, arguments.only or parts
    torch.set_num_threads(1)
    repeats = 3 if quick else 15
    machine = platform.processor() or platform.machine()
    print(f"{machine}, one thread, torch {torch.__version__}, float64, set-up included.")
    if "memory" in wanted:
        memory(500 if quick else 2000)  # first, see in_fresh_process
    if "pairs" in wanted:
        mixed_table(pair_table(repeats), repeats)
    if "sites" in wanted:
        site_table(3 if quick else 7, (20, 80) if quick else (20, 80, 320, 640))
    if "bounds" in wanted:
        bound_table(5 if quick else 40)


if __name__ == "__main__":
    main()
