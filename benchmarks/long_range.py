"""Does the complete channel earn its place? `python benchmarks/long_range.py [--steps 600] [--output FOLDER]`

Point charges with a Born repulsion, exact energies and forces, farther apart than the local cut-off: gases of 4 to 10
ions in vacuum, the same in periodic cells, and one ion pair pulled apart. A local network and the same network with the
complete channel are trained on the gases; the pair is never seen. Prints a table of errors and saves a picture.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from torch import nn

from ase_potnet.graph import AtomsBatch
from ase_potnet.lattice import Coulomb, site_sums
from ase_potnet.models import build_model
from ase_potnet.models.derivatives import differentiate

COULOMB = 14.399645  # eV Å
CATION, ANION = 11, 17
CUTOFF = 5.0  # Å
BORN, RANGE = 800.0, 0.33  # eV, Å
OPTIONS = {"width": 16, "message_width": (8, 4, 2), "n_sources": 2, "cutoff": CUTOFF, "neutral": "mean"}


@dataclass(frozen=True)
class Labelled:
    """Structures with exact energies (B,) and forces (T, 3)."""

    atoms: AtomsBatch
    energy: torch.Tensor
    forces: torch.Tensor


def gas(rng: np.random.Generator, periodic: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers, positions and cell of a neutral gas; any two ions are 1.8 Å apart or more."""
    n = 2 * int(rng.integers(2, 6))
    length = 22.0
    numbers = np.array([CATION, ANION] * (n // 2))
    while True:
        positions = rng.uniform(0, length, (n, 3))
        shift = positions[:, None] - positions
        shift -= length * np.rint(shift / length)
        distance = np.sqrt((shift**2).sum(2)) + 100 * np.eye(n)
        if distance.min() > 1.8:
            return numbers, positions, np.eye(3) * length * periodic


def label(structures: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Labelled:
    counts = [len(numbers) for numbers, _, _ in structures]
    batch = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    cell = torch.from_numpy(np.stack([cell for _, _, cell in structures]))
    pbc = cell.abs().sum(2) > 0
    numbers = torch.from_numpy(np.concatenate([numbers for numbers, _, _ in structures]))
    positions = torch.from_numpy(np.concatenate([x for _, x, _ in structures])).requires_grad_()
    charges = torch.where(numbers == CATION, 1.0, -1.0).double()
    potential = site_sums(charges[:, None], positions, cell, Coulomb(), pbc=pbc, batch=batch, tolerance=1e-9)
    assert isinstance(potential, torch.Tensor)
    energies = 0.5 * COULOMB * charges * potential[:, 0, 0]
    distance = torch.cdist(positions, positions) + 1e3 * (batch[:, None] != batch) + 1e3 * torch.eye(len(batch))
    energies = energies + 0.5 * BORN * torch.exp(-distance / RANGE).sum(1)
    energy = torch.zeros(len(counts), dtype=torch.float64).index_add(0, batch, energies)
    (slope,) = torch.autograd.grad(energy.sum(), positions)
    atoms = AtomsBatch(numbers, positions.detach(), cell, pbc, batch)
    return Labelled(atoms.to(dtype=torch.float32), energy.detach().float(), -slope.float())


def fit(model: nn.Module, data: list[Labelled], steps: int, title: str) -> float:
    """Adam on energies and forces. Returns the seconds."""
    parameters = list(model.parameters())
    optimiser = torch.optim.Adam(parameters, lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, total_steps=steps)
    start = time.perf_counter()
    for step in track(range(steps), title, transient=True):
        part = data[step % len(data)]
        found = differentiate(model, part.atoms, stress=False, create_graph=True)
        assert found.forces is not None
        n_atoms = part.atoms.n_atoms
        loss = ((found.energy - part.energy) / n_atoms).abs().mean() + (found.forces - part.forces).abs().mean()
        optimiser.zero_grad()
        loss.backward(inputs=parameters)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
    return time.perf_counter() - start


def errors(model: nn.Module, data: Labelled) -> tuple[float, float]:
    """Mean absolute errors of energies (meV an ion) and forces (meV/Å)."""
    found = differentiate(model, data.atoms, stress=False)
    assert found.forces is not None
    energy = ((found.energy - data.energy) / data.atoms.n_atoms).abs().mean()
    return float(energy) * 1e3, float((found.forces - data.forces).abs().mean()) * 1e3


def pair(distances: np.ndarray) -> Labelled:
    places = [np.array([[0.0, 0, 0], [r, 0, 0]]) for r in distances]
    return label([(np.array([CATION, ANION]), place, np.zeros((3, 3))) for place in places])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--output", type=Path, default=Path())
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    train = [label([gas(rng, periodic=k % 2 == 0) for _ in range(16)]) for k in range(16)]
    tests = {
        "gas in vacuum": label([gas(rng, periodic=False) for _ in range(50)]),
        "gas in a periodic cell": label([gas(rng, periodic=True) for _ in range(50)]),
        "pair, 2 to 40 Å": pair(np.linspace(2.0, 40.0, 77)),
    }
    models = {}
    for name, n_sources in (("local", 0), ("local + complete", 2)):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            models[name] = build_model("equivariant-potnet", OPTIONS | {"n_sources": n_sources})
        seconds = fit(models[name], train, options.steps, name)
        print(f"{name}: {sum(p.numel() for p in models[name].parameters()):,} parameters, {seconds:.0f} s")
    print("\n| test | network | energy, meV/ion | forces, meV/Å |\n|---|---|---|---|")
    for test, data in tests.items():
        for name, model in models.items():
            energy, forces = errors(model, data)
            print(f"| {test} | {name} | {energy:.1f} | {forces:.1f} |")
    picture(models, tests["pair, 2 to 40 Å"], options.output / "long_range.png")


def picture(models: dict[str, nn.Module], data: Labelled, path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    distance = data.atoms.positions[1::2, 0]
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    axes.plot(distance, data.energy, color="black", linewidth=3, alpha=0.3, label="exact")
    for (name, model), style in zip(models.items(), ("--", "-"), strict=True):
        axes.plot(distance, differentiate(model, data.atoms, forces=False, stress=False).energy, style, label=name)
    axes.axvline(CUTOFF, color="grey", linewidth=0.8)
    axes.annotate("local cut-off", (CUTOFF + 0.3, -1.0))
    axes.set(xlabel="distance, Å", ylabel="energy of a pair of ions, eV", ylim=(-8, 1))
    axes.legend()
    figure.savefig(path, dpi=150)
    print(f"\n{path}")


if __name__ == "__main__":
    main()
