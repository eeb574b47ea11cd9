"""Structures for tests of property models, and the same crystals written in other ways."""

from __future__ import annotations

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk, make_supercell
from torch import nn

from ase_potnet.graph import batch_structures


def perovskite() -> Atoms:
    atoms = Atoms(
        "SrTiO3",
        scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
        cell=np.diag([3.9, 3.95, 4.1]) + 0.1 * np.tri(3, k=-1),
        pbc=True,
    )
    atoms.rattle(0.05, seed=1)
    return atoms


CRYSTALS = {"perovskite": perovskite(), "rocksalt": bulk("NaCl", "rocksalt", a=5.64), "one atom": bulk("Cu")}
TURN = np.array([[1, 0, 0], [2, 1, 0], [-1, 3, 1]])  # determinant 1


def rewritten(atoms: Atoms) -> dict[str, Atoms]:
    """The same crystal in other orientations, with other origins, orders and cells."""
    rng = np.random.default_rng(5)
    turned, shifted, wrapped = atoms.copy(), atoms.copy(), atoms.copy()
    turned.rotate(47, (1, -2, 3), rotate_cell=True)
    shifted.positions += [0.3, -7.1, 2.2]
    wrapped.positions += rng.integers(-4, 5, (len(atoms), 3)) @ atoms.cell.array
    mirrored = atoms.copy()
    mirrored.set_cell(-atoms.cell.array, scale_atoms=True)
    other = atoms.copy()
    other.set_cell(TURN @ atoms.cell.array)
    return {
        "turned": turned,
        "shifted": shifted,
        "wrapped": wrapped,
        "inverted": mirrored,
        "reordered": atoms[rng.permutation(len(atoms))],
        "another basis": other,
    }


def supercells(atoms: Atoms) -> dict[str, Atoms]:
    return {
        "2x1x1": atoms * (2, 1, 1),
        "2x2x2": atoms * (2, 2, 2),
        "skewed": make_supercell(atoms, [[1, 1, 0], [-1, 2, 0], [0, 1, 1]]),
    }


@torch.no_grad()
def predict(model: nn.Module, *structures: Atoms, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return model(batch_structures(structures, dtype=dtype))


def ready(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model in float64 and evaluation mode with random weights everywhere, none of them at zero."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        with torch.no_grad():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(0.05 * noise.to(parameter))
    return model.double().eval()
