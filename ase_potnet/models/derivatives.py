"""Forces and stress: the one place where the energy is differentiated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ase_potnet.graph import AtomsBatch


@dataclass(frozen=True)
class Predictions:
    """What a potential says about a batch; None where it was not asked.

    energy: (B,) eV
    energies: (T,) of the atoms, eV
    forces: (T, 3) eV/Å
    stress: (B, 3, 3) eV/Å^3, (1/V) dE/dε; NaN for structures that are not periodic in three directions (a constant:
        a masked loss has finite gradients)
    """

    energy: Tensor
    energies: Tensor
    forces: Tensor | None = None
    stress: Tensor | None = None


def differentiate(
    model: Callable[[AtomsBatch], Tensor],
    atoms: AtomsBatch,
    *,
    forces: bool = True,
    stress: bool = True,
    create_graph: bool = False,
) -> Predictions:
    """Energy of every structure with its derivatives with respect to positions and strain.

    Args:
        model: atoms to energies (T,).
        create_graph: keep what a second differentiation needs (training on forces).
    """
    if torch.is_inference_mode_enabled():
        with torch.inference_mode(mode=False):
            return differentiate(model, _outside(atoms), forces=forces, stress=stress, create_graph=create_graph)
    with torch.enable_grad():
        positions, cell = atoms.positions, atoms.cell
        wanted = []
        if forces:
            positions = positions.detach().requires_grad_()
            wanted.append(positions)
        moved = positions
        if stress:
            strain = torch.zeros_like(cell, requires_grad=True)
            symmetric = 0.5 * (strain + strain.transpose(1, 2))
            moved = positions + _products(positions, symmetric, atoms.batch)
            cell = cell + cell @ symmetric
            wanted.append(strain)
        energies = model(atoms.moved(moved, cell))
        energy = _totals(energies, atoms)
        slopes = torch.autograd.grad(energy.sum(), wanted, create_graph=create_graph) if wanted else ()
    result_forces = -slopes[0] if forces else None
    result_stress = None
    if stress:
        whole = atoms.pbc.all(dim=1).to(atoms.device)
        volume = torch.where(whole, _volumes(atoms.cell.detach()), 1.0)[:, None, None]
        result_stress = torch.where(whole[:, None, None], slopes[-1] / volume, torch.nan)
    if not create_graph:
        energy, energies = energy.detach(), energies.detach()
    return Predictions(energy, energies, result_forces, result_stress)


def _outside(atoms: AtomsBatch) -> AtomsBatch:
    """The atoms in tensors that gradients may be taken of, whatever mode they were made in."""
    return AtomsBatch(*(getattr(atoms, field.name).clone() for field in fields(atoms)))


def _products(vectors: Tensor, matrices: Tensor, batch: Tensor) -> Tensor:
    """Every vector times the matrix of its structure. (T, 3), (B, 3, 3), (T,) -> (T, 3)"""
    if len(matrices) == 1:
        return vectors @ matrices[0]
    return (vectors[:, None] @ matrices[batch])[:, 0]


def _volumes(cell: Tensor) -> Tensor:
    """(B, 3, 3) -> (B,)"""
    return (cell[:, 0] * torch.linalg.cross(cell[:, 1], cell[:, 2])).sum(1).abs()


def _totals(energies: Tensor, atoms: AtomsBatch) -> Tensor:
    """Sum over the atoms of every structure. (T,) -> (B,)"""
    if atoms.n_structures == 1:
        return energies.sum()[None]
    return energies.new_zeros(atoms.n_structures).index_add(0, atoms.batch, energies)


def second_derivatives(
    model: Callable[[AtomsBatch], Tensor],
    atoms: AtomsBatch,
    rows: Sequence[int],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Rows of the Hessian of the total energy by Hessian-vector products: harmonic force constants.

    Args:
        model: atoms to energies (T,).
        rows: atoms r whose rows are wanted.
        progress: called with the number of rows done and of all.

    Returns:
        (len(rows), T, 3, 3) eV/Å^2; [k, j, a, b] = d²E / dr_(rows[k], a) dr_(j, b)
    """
    with torch.enable_grad():
        positions = atoms.positions.detach().requires_grad_()
        energy = model(atoms.moved(positions, atoms.cell)).sum()
        (slopes,) = torch.autograd.grad(energy, positions, create_graph=True)
        result = positions.new_empty(len(rows), len(positions), 3, 3)
        for place, row in enumerate(rows):
            for axis in range(3):
                (curvatures,) = torch.autograd.grad(slopes[row, axis], positions, retain_graph=True)
                result[place, :, axis] = curvatures
            if progress is not None:
                progress(place + 1, len(rows))
    return result.detach()
