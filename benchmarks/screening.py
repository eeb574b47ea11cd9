"""Screening in batches against an ASE loop, and its cost as it grows: `python benchmarks/screening.py [--data FILE]`.

Two tables: (1) crystals of about 10 atoms, single points (energy, forces, stress) and relaxations, one after the other
with the ASE calculator and in batches, in one run; (2) single point and packaged formation energy of the first 100,
1,000, ... crystals of a file: crystals a second and peak memory, each in a process of its own. --json saves them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
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
    """Crystals of 8 to 12 atoms, from a file or built, all 3 % too wide."""
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


def compare(some: list[tuple[str, Atoms]], model: str) -> list[dict[str, Any]]:
    """Seconds a crystal: ASE loop (float64, as the calculator comes), and batches in both precisions."""
    calculator, network = PotNetCalculator(model, device="cpu"), load_model(model)  # neither loads while the clock runs
    rows: list[dict[str, Any]] = []
    for task, in_loop in (("energy", single_point), ("relax", relaxation)):
        in_loop(some[0][1].copy(), calculator)
        start = time.perf_counter()
        for _, atoms in some:
            in_loop(atoms.copy(), calculator)
        loop = (time.perf_counter() - start) / len(some)
        row: dict[str, Any] = {"task": task, "loop": loop}
        for dtype in ("float32", "float64"):
            options = {"relax.fmax": FMAX, "relax.max_steps": STEPS} if task == "relax" else {}
            with screen(some, task, model=network, dtype=dtype, options=options, device="cpu") as run:
                start = time.perf_counter()
                for _ in run:
                    pass
            row[dtype] = (time.perf_counter() - start) / len(some)
            row[f"{dtype} failed"] = run.summary.failed
        rows.append(row)
    return rows


def single_point(atoms: Atoms, calculator: PotNetCalculator) -> None:
    atoms.calc = calculator
    atoms.get_potential_energy()
    atoms.get_forces()
    atoms.get_stress()


def relaxation(atoms: Atoms, calculator: PotNetCalculator) -> None:
    atoms.calc = calculator
    BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=FMAX, steps=STEPS)


def growth(data: Path, number: int, model: str, tasks: str) -> dict[str, Any]:
    """Screen the first crystals of a file into a new file of results; meant for a process of its own."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        sources = itertools.islice(((c.id, c.atoms) for c in candidates(data) if c.atoms is not None), number)
        with screen(sources, tasks, Path(folder) / "r.db", model=model, device="cpu") as run:
            for _ in run:
                pass
        seconds = time.perf_counter() - start
        size = (Path(folder) / "r.db").stat().st_size
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    summary = run.summary
    return {
        "crystals": summary.found, "seconds": seconds, "failed": summary.failed, "peak_MiB": peak,
        "bytes_a_record": size / max(summary.found, 1),
    }  # fmt: skip


def packaged_tasks() -> str:
    """Single point, and the packaged formation energy if there is one."""
    offered = {target.name for name in list_models() for target in model_info(name).targets}
    return "energy,property:formation_energy_per_atom" if "formation_energy_per_atom" in offered else "energy"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="file of crystals, such as mp_train.csv.gz; default: built ones")
    parser.add_argument("--model", default="default")
    parser.add_argument("--crystals", type=int, default=24, help="of the comparison")
    parser.add_argument("--sizes", type=int, nargs="*", default=[100, 1000, 10_000], help="of the growth")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(growth(arguments.data, arguments.one, arguments.model, packaged_tasks())))
        return
    print(
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}\n"
    )
    rows = compare(crystals(arguments.data, arguments.crystals), arguments.model) if arguments.crystals else []
    print("| task | ASE loop (ms a crystal) | batches, float32 | ratio | batches, float64 | ratio | failed |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        single, double = row["float32"], row["float64"]
        print(
            f"| {row['task']} | {1e3 * row['loop']:.1f} | {1e3 * single:.1f} | {row['loop'] / single:.1f} "
            f"| {1e3 * double:.1f} | {row['loop'] / double:.1f} "
            f"| {row['float32 failed']}, {row['float64 failed']} |"
        )
    sizes = []
    if arguments.data is not None and arguments.sizes:
        print(f"\n{packaged_tasks()}\n\n| crystals | a second | failed | peak memory (MiB) | bytes a record |")
        print("|---|---|---|---|---|")
        for number in arguments.sizes:
            command = [sys.executable, __file__, "--data", str(arguments.data), "--one", str(number)]
            out = subprocess.run([*command, "--model", arguments.model], capture_output=True, text=True, check=True)
            size = json.loads(out.stdout.splitlines()[-1])
            sizes.append(size)
            print(
                f"| {size['crystals']:,} | {size['crystals'] / size['seconds']:.1f} | {size['failed']} "
                f"| {size['peak_MiB']:.0f} | {size['bytes_a_record']:.0f} |",
                flush=True,
            )
    if arguments.json:
        arguments.json.write_text(json.dumps({"comparison": rows, "growth": sizes}, indent=1))


if __name__ == "__main__":
    main()
