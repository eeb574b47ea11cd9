"""Accuracy and cost of interatomic potentials: `python benchmarks/potentials.py [--data FILES...] [--models ...]`.

Errors against DFT frames (extended XYZ with energy, forces, stress; compressed files, too), the time of energy,
forces and stress at three sizes, and the memory of 1,000 atoms. Peers that are not installed are left out with a
message; CHGNet and SevenNet carry their weights in their wheels. Energies are compared after a least-squares shift per
element, fitted for each potential and each file, since potentials are fitted to energies with different corrections.
Prints Markdown tables; --json saves the numbers.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.io import read
from ase.units import GPa
from processes import in_fresh_process
from rich.progress import track

SAMPLE = Path(__file__).parent.parent / "tests" / "data" / "dft_forces_sample.extxyz"


def potnet(model: str, *, compiled: bool = False) -> Calculator:
    from ase_potnet import PotNetCalculator

    return PotNetCalculator(model, device="cpu", dtype="float32", compile=compiled)


def chgnet() -> Calculator:
    from chgnet.model import CHGNetCalculator

    return CHGNetCalculator(use_device="cpu")


def sevennet() -> Calculator:
    from sevenn.calculator import SevenNetCalculator

    return SevenNetCalculator("7net-0", device="cpu")


PEERS: dict[str, Callable[[], Calculator]] = {"CHGNet": chgnet, "SevenNet-0": sevennet}


def calculators(models: list[str], peers: list[str]) -> dict[str, Calculator]:
    found = {f"ase_potnet {name}": potnet(name) for name in models}
    for name in peers:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found[name] = PEERS[name]()
        except ImportError as error:
            print(f"{name} is left out: {error}")
    return found


def frames_of(path: Path, n_frames: int, seed: int) -> list[Atoms]:
    """Some frames of a file, drawn at random."""
    frames = read(path, ":")
    assert isinstance(frames, list)
    chosen = np.random.default_rng(seed).permutation(len(frames))[:n_frames]
    return [frames[k] for k in np.sort(chosen)]


def errors(calculator: Calculator, frames: list[Atoms], title: str) -> dict[str, float]:
    """Mean absolute errors: meV/atom (after the shift), eV/Å, GPa."""
    energy, forces, stress, failed = [], [], [], 0
    elements = sorted({int(z) for atoms in frames for z in atoms.numbers})
    rows = []
    for atoms in track(frames, title, transient=True):
        trial = atoms.copy()
        try:
            trial.calc = calculator
            found = trial.get_potential_energy(), trial.get_forces(), trial.get_stress()
        except Exception as error:  # a peer may not know an element
            failed += 1
            print(f"{title}: {atoms.get_chemical_formula()}: {error}")
            continue
        rows.append([np.count_nonzero(atoms.numbers == z) / len(atoms) for z in elements])
        energy.append((found[0] - atoms.get_potential_energy()) / len(atoms))
        forces.append(np.abs(found[1] - atoms.get_forces()).ravel())
        stress.append(np.abs(found[2] - atoms.get_stress()) / GPa)
    shift = np.linalg.lstsq(np.array(rows), np.array(energy), rcond=1e-8)[0]
    rest = np.array(energy) - np.array(rows) @ shift
    return {
        "energy": float(np.abs(rest).mean() * 1e3),
        "forces": float(np.concatenate(forces).mean()),
        "stress": float(np.mean(stress)),
        "frames": len(energy),
        "failed": failed,
    }


def crystals() -> dict[int, Atoms]:
    """About 10, 100 and 500 atoms, rattled."""
    found = {}
    for repeat in ((1, 1, 1), (2, 2, 3), (4, 4, 4)):
        atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True).repeat(repeat)
        atoms.rattle(0.05, seed=0)
        found[len(atoms)] = atoms
    return found


def seconds(calculators: dict[str, Calculator], repeats: int) -> dict[int, dict[str, float]]:
    """Median time of energy, forces and stress, the potentials in turn; every atom moves a little each time."""
    times: dict[int, dict[str, list[float]]] = {}
    rng = np.random.default_rng(0)
    for n_atoms, atoms in crystals().items():
        times[n_atoms] = {name: [] for name in calculators}
        for repeat in range(repeats + 1):
            for name, calculator in calculators.items():
                trial = atoms.copy()
                trial.positions += 0.01 * rng.normal(size=trial.positions.shape)
                trial.calc = calculator
                start = time.perf_counter()
                trial.get_potential_energy(), trial.get_forces(), trial.get_stress()
                if repeat:
                    times[n_atoms][name].append(time.perf_counter() - start)
    return {n: {name: float(np.median(values)) for name, values in row.items()} for n, row in times.items()}


def memory(models: list[str], peers: list[str]) -> dict[str, float]:
    """Peak memory of a process that computes 1,000 atoms once and nothing else, GiB."""
    peaks = {}
    for chosen in [([model], []) for model in models] + [([], [peer]) for peer in peers]:
        names, peak = in_fresh_process(_compute, *chosen, torch.get_num_threads())
        peaks |= dict.fromkeys(names, peak)
    return peaks


def _compute(models: list[str], peers: list[str], n_threads: int) -> list[str]:
    """Energy, forces and stress of 1,000 atoms; the name of the potential, if it is installed."""
    torch.set_num_threads(n_threads)
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True).repeat(5)
    atoms.rattle(0.05, seed=0)
    found = calculators(models, peers)
    for calculator in found.values():
        atoms.calc = calculator
        atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
    return list(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", type=Path, default=[SAMPLE])
    parser.add_argument("--models", nargs="+", default=["default"], help="packaged names or model folders")
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--frames", type=int, default=100, help="of each file")
    parser.add_argument("--repeats", type=int, default=5, help="of each timing; 0: no timing, no memory")
    parser.add_argument("--compile", action="store_true", help="time the first model compiled as well")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result: dict[str, Any] = {"machine": platform.processor() or platform.machine(), "threads": torch.get_num_threads()}
    if options.repeats:
        result["memory"] = memory(options.models, options.peers)  # first, see in_fresh_process
        print("\n| potential | GiB for 1,000 atoms |\n|---|---|")
        for name, peak in result["memory"].items():
            print(f"| {name} | {peak:.2f} |", flush=True)
    found = calculators(options.models, options.peers)
    print("\n| frames | potential | energy, meV/atom | forces, eV/Å | stress, GPa |\n|---|---|---|---|---|")
    for path in options.data:
        frames = frames_of(path, options.frames, options.seed)
        for name, calculator in found.items():
            row = errors(calculator, frames, f"{path.name.split('.')[0]}, {name}")
            result.setdefault("errors", {}).setdefault(path.name, {})[name] = row
            print(
                f"| {path.name.split('.')[0]} ({row['frames']}) | {name} | {row['energy']:.1f} | {row['forces']:.3f} "
                f"| {row['stress']:.2f} |",
                flush=True,
            )
    if options.repeats:
        if options.compile:
            found[f"ase_potnet {options.models[0]}, compiled"] = potnet(options.models[0], compiled=True)
        result["seconds"] = seconds(found, options.repeats)
        print("\n| atoms | potential | ms | relative |\n|---|---|---|---|")
        for n_atoms, row in result["seconds"].items():
            first = next(iter(row.values()))
            for name, value in row.items():
                print(f"| {n_atoms} | {name} | {value * 1e3:.1f} | {value / first:.1f} |")
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
