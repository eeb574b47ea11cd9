"""Screening in batches against an ASE loop, and its cost as it grows: `python benchmarks/screening.py [--data FILE]`.

Two tables: (1) crystals of about 10 atoms, single points (energy, forces, stress) and relaxations, one after the other
with the ASE calculator and in batches, in one run and in equal precision; (2) single point and packaged formation
energy of the crystals of a file, when 100, 1,000, ... are finished: crystals a second and peak memory. The results of
(2) stay in --out: the same command goes on with the crystals that are not in it. --json saves the tables.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import resource
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from ase import Atoms
from ase.build import bulk
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS

from ase_potnet import PotNetCalculator, list_models
from ase_potnet.pretrained import load_model, model_info
from ase_potnet.screening import screen
from ase_potnet.screening.sources import candidates

FMAX = 0.05
STEPS = 200


def crystals(data: Path | None, number: int) -> list[tuple[str, Atoms]]:
    """Crystals of 8 to 12 atoms, from a file or built, 1 % too wide and rattled."""
    if data is None:
        made = [
            bulk(a + b, kind, a=length, cubic=True)
            for (a, b, length), kind in itertools.product(
                [("Na", "Cl", 5.6), ("Mg", "O", 4.2), ("Li", "F", 4.0), ("K", "Br", 6.6), ("Zn", "S", 5.4)],
                ["rocksalt", "zincblende"],
            )
        ]
        found = [(f"{i}", made[i % len(made)].copy()) for i in range(number)]
    else:
        good = (c for c in candidates(data) if c.atoms is not None and 8 <= len(c.atoms) <= 12)
        found = [(c.id, c.atoms) for c in itertools.islice(good, 0, 37 * number, 37) if c.atoms is not None]
    for seed, (_, atoms) in enumerate(found):
        atoms.set_cell(1.01 * atoms.cell.array, scale_atoms=True)
        atoms.rattle(0.02, seed=seed)
    return found


def compare(data: Path | None, numbers: dict[str, int], model: str) -> Iterator[dict[str, Any]]:
    """Seconds a crystal, in an ASE loop and in batches of the same precision, models loaded before."""
    for task, number in numbers.items():
        some = crystals(data, number) if number else []
        for dtype in ("float32", "float64") if some else ():
            calculator, network = PotNetCalculator(model, device="cpu", dtype=dtype), load_model(model)
            in_loop = single_point if task == "energy" else relaxation
            in_loop(some[0][1].copy(), calculator)  # both have run before
            list(screen(some, "energy", model=network, dtype=dtype, device="cpu"))
            start = time.perf_counter()
            for _, atoms in some:
                in_loop(atoms.copy(), calculator)
            loop = (time.perf_counter() - start) / len(some)
            options = {"relax.fmax": FMAX, "relax.max_steps": STEPS} if task == "relax" else {}
            with screen(some, task, model=network, dtype=dtype, options=options, device="cpu") as run:
                start = time.perf_counter()
                for _ in run:
                    pass
            batches = (time.perf_counter() - start) / len(some)
            yield {
                "task": task, "crystals": len(some), "dtype": dtype, "loop": loop, "batches": batches,
                "failed": run.summary.failed,
            }  # fmt: skip


def single_point(atoms: Atoms, calculator: PotNetCalculator) -> None:
    atoms.calc = calculator
    atoms.get_potential_energy()
    atoms.get_forces()
    atoms.get_stress()


def relaxation(atoms: Atoms, calculator: PotNetCalculator) -> None:
    atoms.calc = calculator
    BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=FMAX, steps=STEPS)


def growth(data: Path, sizes: list[int], model: str, tasks: str, out: Path) -> Iterator[dict[str, Any]]:
    """Screen a file, and what it has cost when 100, 1,000, ... crystals are finished. Goes on where it was stopped."""
    marks = deque(sorted(sizes))
    wall, used, atoms = time.perf_counter(), time.process_time(), 0
    with screen(data, tasks, out, model=model, device="cpu", progress=True) as run:
        for record in run:
            summary = run.summary
            atoms += record.n_atoms
            if marks and summary.done + summary.failed == marks[0]:
                yield {
                    "crystals": marks.popleft(), "atoms": atoms, "seconds": time.perf_counter() - wall,
                    "processor_seconds": time.process_time() - used, "failed": summary.failed,
                    "peak_MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                    "bytes_a_record": out.stat().st_size / summary.finished,
                }  # fmt: skip
                if not marks:
                    break
    print(f"\n{run.summary}")


def packaged_tasks() -> str:
    """Single point, and the packaged formation energy if there is one."""
    offered = {target.name for name in list_models() for target in model_info(name).targets}
    return "energy,property:formation_energy_per_atom" if "formation_energy_per_atom" in offered else "energy"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="file of crystals, such as mp_train.csv.gz; default: built ones")
    parser.add_argument("--model", default="default")
    parser.add_argument("--points", type=int, default=96, help="single points of the comparison")
    parser.add_argument("--relaxations", type=int, default=12, help="of the comparison")
    parser.add_argument("--sizes", type=int, nargs="*", default=[100, 1000, 10_000], help="of the growth")
    parser.add_argument("--out", type=Path, default=Path("screening-benchmark.db"), help="results of the growth")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    print(
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}\n"
    )
    saved: dict[str, list[dict[str, Any]]] = {"comparison": [], "growth": []}
    print("| task | crystals | precision | ASE loop (ms a crystal) | batches | ratio | failed |")
    print("|---|---|---|---|---|---|---|")
    for row in compare(arguments.data, {"energy": arguments.points, "relax": arguments.relaxations}, arguments.model):
        saved["comparison"].append(row)
        loop, batches = 1e3 * row["loop"], 1e3 * row["batches"]
        print(
            f"| {row['task']} | {row['crystals']} | {row['dtype']} | {loop:.1f} | {batches:.1f} | {loop / batches:.1f} "
            f"| {row['failed']} |",
            flush=True,
        )
    if arguments.data is not None and arguments.sizes:
        tasks = packaged_tasks()
        print(f"\n{tasks}\n")
        print("| crystals | a second | a processor second | ms an atom | failed | peak MiB | bytes a record |")
        print("|---|---|---|---|---|---|---|")
        for size in growth(arguments.data, arguments.sizes, arguments.model, tasks, arguments.out):
            saved["growth"].append(size)
            number = size["crystals"]
            print(
                f"| {number:,} | {number / size['seconds']:.1f} | {number / size['processor_seconds']:.1f} "
                f"| {1e3 * size['processor_seconds'] / size['atoms']:.2f} | {size['failed']} "
                f"| {size['peak_MiB']:.0f} | {size['bytes_a_record']:.0f} |",
                flush=True,
            )
    if arguments.json:
        arguments.json.write_text(json.dumps(saved, indent=1))


if __name__ == "__main__":
    main()
