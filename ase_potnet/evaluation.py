"""Energies, forces and stresses of many structures, in batches."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from ase.stress import full_3x3_to_voigt_6_stress
from numpy.typing import NDArray
from torch import nn

from ase_potnet.graph import AtomsBatch, PairCutoffs, Structure
from ase_potnet.models import predicts_properties
from ase_potnet.models.derivatives import Predictions, differentiate
from ase_potnet.prediction import blame, check_batch_size, checked_batch, chunks
from ase_potnet.pretrained import load_model, model_info
from ase_potnet.pretrained.format import pick_device, read_dtype

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Result:
    """What a potential says about one structure of N atoms.

    energy: eV
    energies: (N,) of the atoms, eV
    forces: (N, 3) eV/Å, or None
    stress: (6,) eV/Å^3, ASE's sign and Voigt order; None unless three directions are periodic
    """

    energy: float
    energies: Array
    forces: Array | None = None
    stress: Array | None = None


@torch.inference_mode(mode=False)
def load_potential(
    model: str | Path | nn.Module, *, device: torch.device | str = "auto", dtype: torch.dtype | str = "float64"
) -> nn.Module:
    """An interatomic potential from a packaged name, a model folder, or a loaded model, which is copied.

    Raises ValueError naming model, device or dtype.
    """
    wanted, place = read_dtype(dtype), pick_device(device)
    if isinstance(model, nn.Module):
        if predicts_properties(model):
            raise ValueError(f"model: {type(model).__name__} predicts properties, not energies")
        return copy.deepcopy(model).to(device=place, dtype=wanted).eval().requires_grad_(False)
    info = model_info(model)
    if info.task != "energy":
        raise ValueError(f"model: {info.name} predicts {', '.join(t.name for t in info.targets)}, not energies")
    return load_model(info.folder, device=place, dtype=wanted)


def evaluate(
    structures: Structure | Iterable[Structure],
    model: str | Path | nn.Module = "default",
    *,
    forces: bool = True,
    stress: bool = True,
    batch_size: int | Literal["auto"] = "auto",
    device: torch.device | str = "auto",
    dtype: torch.dtype | str = "float64",
) -> Iterator[Result]:
    """Energy, forces and stress of every structure, in their order; many at once, so faster than a calculator.

    Structures are read as results are taken, a batch at a time: a generator of any length will do.

    Args:
        structures: one or many ASE ``Atoms``, pymatgen ``Structure``, or tuples (numbers, positions, cell, pbc).
        model: packaged name, model folder, or loaded model.
        forces, stress: what is wanted besides energies.
        batch_size: structures of a batch; "auto": by their sizes.
        device: "auto": a GPU if there is one.
        dtype: "float64" or "float32", by name or as torch's.

    Raises:
        ValueError: at once for the arguments; for a structure (``StructureError``, with its number) when its batch
            is due.
    """
    check_batch_size(batch_size)
    network = load_potential(model, device=device, dtype=dtype)
    return _results(network, structures, batch_size, forces, stress, read_dtype(dtype), pick_device(device))


def _results(
    network: nn.Module,
    structures: Any,
    batch_size: int | Literal["auto"],
    forces: bool,
    stress: bool,
    dtype: torch.dtype,
    device: torch.device,
) -> Iterator[Result]:
    first = 0
    for chunk in chunks(structures, batch_size):
        try:
            atoms = checked_batch(chunk, dtype, device)
            found = differentiate(network, atoms, forces=forces, stress=stress)
        except ValueError:
            blame(network, chunk, first, dtype, device)
            raise
        yield from split_results(atoms, found)
        first += len(chunk)


def neighbour_cutoff(network: Any, default: float | None = None) -> float | PairCutoffs:
    """Distances up to which a network wants the neighbours of atoms, Å. default: for one that does not say"""
    if hasattr(network, "cutoffs"):
        cutoffs: PairCutoffs = network.cutoffs
        return cutoffs
    return float(network.config.cutoff if default is None else getattr(network.config, "cutoff", default))


def split_results(atoms: AtomsBatch, found: Predictions) -> Iterator[Result]:
    """The predictions of a batch, structure by structure."""
    energy, energies = found.energy.double().cpu().numpy(), found.energies.double().cpu().numpy()
    forces = None if found.forces is None else found.forces.double().cpu().numpy()
    stress = None if found.stress is None else found.stress.double().cpu().numpy()
    periodic = atoms.pbc.all(dim=1).tolist()
    end = 0
    for index, n_atoms in enumerate(atoms.n_atoms.tolist()):
        rows = slice(end, end + n_atoms)
        end += n_atoms
        yield Result(
            energy=float(energy[index]),
            energies=energies[rows],
            forces=None if forces is None else forces[rows],
            stress=full_3x3_to_voigt_6_stress(stress[index]) if stress is not None and periodic[index] else None,
        )
