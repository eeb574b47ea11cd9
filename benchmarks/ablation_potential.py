"""What the potential is made of, at equal processor time: complete sums, cut-off, width, layers.

    python benchmarks/ablation_potential.py frames.extxyz.xz [more.extxyz ...] [--minutes 5] [--output DIR]
        [--variants N] [--picture FILE]

Frames with energies (eV), forces (eV/Å) and stress (eV/Å^3), such as `potnet label` writes; frames of one crystal stay
together, 10 % of the crystals are held out. Every variant is trained by the package's own training, on the same frames,
in float32, one after another; interrupted, the same command goes on. "local only, 80 wide" takes as long a step as
"default". Errors are given for all crystals held out, and for the ionic ones among them: those with O, F, Cl, Br or I
and a metal whose electronegativity (Pauling) is smaller by 1.7 or more.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ablation_runs import run_all, table
from pymatgen.core import Element

from ase_potnet.models.derivatives import differentiate
from ase_potnet.pretrained import load_model
from ase_potnet.training.arrays import StructureArrays
from ase_potnet.training.evaluation import predict_arrays, predict_energies
from ase_potnet.training.metrics import energy_metrics
from ase_potnet.training.recipe import load_recipe
from ase_potnet.training.sources import load_training_data

VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "local only, 80 wide": {"n_sources": 0, "width": 80},
    "1 layer": {"n_layers": 1},
    "3 layers": {"n_layers": 3},
    "96 wide": {"width": 96, "message_width": [36, 12, 6]},
    "32 wide": {"width": 32, "message_width": [12, 4, 2]},
    "cut-off 4.5 Å": {"cutoff": 4.5},
    "local only, 64 wide": {"n_sources": 0},
    "cut-off 6 Å": {"cutoff": 6.0},
    "with fields": {"fields": True},
}
ANIONS = ("O", "F", "Cl", "Br", "I")
IONIC = 1.7  # difference of electronegativities


def recipe(frames: list[str], options: dict[str, Any], lr: float) -> dict[str, Any]:
    return {
        "task": "energy",
        "data": {"path": frames, "split": {"kind": "group", "fractions": [0.9, 0.1, 0.0]}},
        "model": {"name": "equivariant-potnet", "options": options},
        "loss": {  # of recipes/potential.yaml
            "energy": {"kind": "huber", "weight": 40.0, "delta": 0.05},
            "forces": {"kind": "norm", "weight": 2.6},
            "stress": {"kind": "l1", "weight": 20.0},
            "force_scale": 0.2,
            "stress_scale": 0.1,
        },
        "optimiser": {
            "lr": lr,
            "weight_decay": 1e-3,
            "betas": [0.9, 0.99],
            "schedule": "cosine",
            "warmup": 0.05,
            "final": 0.01,
        },
        "batch": {"edges": 8000, "cutoff": 5.0},
        "ema": 0.99,
        "clip": 10.0,
    }


def ionic(arrays: StructureArrays) -> np.ndarray:
    """Rows of the ionic crystals."""
    rows = []
    for row in range(len(arrays)):
        numbers = set(arrays.numbers[arrays.first[row] : arrays.first[row + 1]].tolist())
        elements = [Element.from_Z(number) for number in numbers]
        anions = [element.X for element in elements if element.symbol in ANIONS]
        metals = [element.X for element in elements if element.is_metal and not np.isnan(element.X)]
        if anions and metals and max(anions) - min(metals) >= IONIC:
            rows.append(row)
    return np.array(rows, dtype=np.int64)


def forces_and_energy(model: torch.nn.Module, part: StructureArrays) -> tuple[float, float]:
    """Mean absolute errors of forces (meV/Å) and energies (meV/atom); NaN without frames."""
    if not len(part):
        return np.nan, np.nan
    metrics = energy_metrics(predict_arrays(predict_energies, model, part, dtype=torch.float32), part)
    return 1e3 * metrics["forces"]["mae"], 1e3 * metrics["energy_per_atom"]["mae"]


def evaluation_times(models: dict[str, torch.nn.Module], part: StructureArrays, repeats: int = 7) -> dict[str, float]:
    """Processor time of energy, forces and stress in batches of 32 crystals, ms an atom; best of the repeats."""
    rows = np.argsort(part.n_atoms, kind="stable")[len(part) // 2 :][:32]
    atoms = part.atoms_batch(rows, torch.float32)
    best = dict.fromkeys(models, np.inf)
    for _ in range(repeats):
        for name, model in models.items():
            start = time.process_time()
            differentiate(model, atoms)
            best[name] = min(best[name], time.process_time() - start)
    return {name: 1e3 * seconds / len(atoms.numbers) for name, seconds in best.items()}


def picture(path: Path, times: dict[str, float], errors: dict[str, float], minutes: float) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.5, 4.2), layout="constrained")
    for name, seconds in times.items():
        local = name.startswith("local")
        axes.plot(seconds, errors[name], "s" if local else "o", color="tab:orange" if local else "tab:blue")
        axes.annotate(name, (seconds, errors[name]), xytext=(5, 4), textcoords="offset points", fontsize=9)
    axes.margins(x=0.2, y=0.15)
    axes.set(
        xlabel="energy, forces and stress, ms an atom (one core)",
        ylabel=f"force error after {minutes:g} minutes of training, meV/Å",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    print(f"\n{path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("frames", nargs="+", help="extxyz files")
    parser.add_argument("--minutes", type=float, default=5.0, help="of processor time for each variant")
    parser.add_argument("--lr", type=float, default=1e-3, help="highest learning rate")
    parser.add_argument("--variants", type=int, default=len(VARIANTS), help="only the first ones")
    parser.add_argument("--output", type=Path, default=Path("runs/ablation_potential"))
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    chosen = dict(list(VARIANTS.items())[: options.variants])
    recipes = {name: recipe(options.frames, variant, options.lr) for name, variant in chosen.items()}
    rows = run_all(recipes, options.output, seconds=60 * options.minutes)
    data = load_training_data(load_recipe(next(iter(recipes.values())) | {"output": ""}), progress=False)
    some = data.val.take(ionic(data.val))
    models = {name: load_model(row["model"], dtype=torch.float32) for name, row in rows.items()}
    times = evaluation_times(models, data.val)
    lines, errors = [], {}
    for name, row in rows.items():
        (forces, energy), (ionic_forces, ionic_energy) = (
            forces_and_energy(models[name], part) for part in (data.val, some)
        )
        errors[name] = forces
        numbers = (
            f"{row['parameters']:,}", f"{row['epochs']:.2f}", f"{1e3 * row['seconds'] / row['steps']:.0f}",
            f"{times[name]:.3f}", f"{forces:.1f}", f"{energy:.1f}", f"{ionic_forces:.1f}", f"{ionic_energy:.1f}",
        )  # fmt: skip
        lines.append([name, *numbers])
    head = ["network", "parameters", "epochs", "ms a step", "ms an atom", "forces, meV/Å", "energy, meV/atom"]
    text = table([*head, "ionic: forces", "ionic: energy"], lines)
    (options.output / "table.md").write_text(text + "\n")
    print(f"\n{options.minutes:g} minutes of processor time each; {len(data.train):,} frames for training,")
    print(f"{len(data.val):,} of other crystals held out, {len(some):,} of them ionic\n\n{text}")
    if options.picture is not None:
        picture(options.picture, times, errors, options.minutes)


if __name__ == "__main__":
    main()
