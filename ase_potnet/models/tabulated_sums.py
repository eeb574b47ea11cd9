"""Pair sums of one crystal as plain tensor operations on tables: what a compiler can take in as a whole.

The same sums as ``lattice.pair_sums``, over the lattice points and wave vectors of its plan. All that depends on the
plan is a table, so that one compiled function serves every crystal whose plan splits the same potentials.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ase_potnet.graph import AtomsBatch
from ase_potnet.lattice.buckets import self_terms, zero_modes
from ase_potnet.lattice.error_bounds import read_tolerance
from ase_potnet.lattice.pair_sums import pair_costs
from ase_potnet.lattice.plan import constants_of, plan_sums
from ase_potnet.lattice.potentials.base import Primitive, decompose, radial_values
from ase_potnet.lattice.primitive_sums import self_and_distinct_pairs
from ase_potnet.lattice.structures import Structures
from ase_potnet.models.local_environment import Neighbourhoods
from ase_potnet.models.site_potentials import CompletePotentials, SitePotentials


@dataclass(frozen=True)
class SumTables:
    """Tables of a plan with M images and W wave vectors for N atoms with P distinct pairs; reduced units.

    to_lattice: (3, 3) reduced lattice = to_lattice · cell
    points: (M, 3) integer, the origin first; indices: (W, 3) integers times 2 pi
    constants: (5, n_primitives) sqrt(eta), alpha, factor to physical units, self term, k = 0 term times volume
    first, second: (P,) atoms of the pairs, that of an atom with itself first; slots: (N, N) pair of each i, j
    """

    to_lattice: Tensor
    points: Tensor
    indices: Tensor
    constants: Tensor
    first: Tensor
    second: Tensor
    slots: Tensor


class TabulatedPotentials:
    """``SitePotentials`` of one crystal from tables."""

    def __init__(self, potentials: SitePotentials, tables: SumTables, complete: tuple[bool, ...]) -> None:
        self.potentials, self.tables, self.complete = potentials, tables, complete

    def __call__(self, sources: Tensor, atoms: AtomsBatch, around: Neighbourhoods | None = None) -> CompletePotentials:
        """sources: (T, Q, 3)"""
        primitives = decompose(self.potentials.potentials).primitives
        sums = _pair_sums(atoms.positions, atoms.cell[0], self.tables, primitives, self.complete)  # (3, T, T)
        own = (sums @ sources.permute(2, 0, 1)).permute(1, 2, 0)
        return self.potentials.of_sums(sources, own, around=around)


def make_tables(potentials: SitePotentials, atoms: AtomsBatch) -> tuple[SumTables, tuple[bool, ...]]:
    """Tables for one crystal, and which primitives are summed whole in real space. Raises ValueError for the cell."""
    decomposition = decompose(potentials.potentials)
    assert decomposition.is_identity
    n_atoms = len(atoms.numbers)
    structures = Structures(
        positions=atoms.positions,
        cell=atoms.cell,
        host_cell=atoms.cell.detach().cpu().numpy().astype(np.float64),
        pbc=atoms.pbc.numpy(),
        n_atoms=np.array([n_atoms]),
        first_atom=np.zeros(1, dtype=np.int64),
        layout="single",
    )
    tolerance = read_tolerance(potentials.tolerance, atoms.dtype)
    (plan,) = plan_sums(structures, decomposition, tolerance, pair_costs, atoms.dtype == torch.float32)
    scale = float(plan.scale[0])
    norms = constants_of(decomposition)
    constants = np.stack(
        (
            np.full(len(norms.norm), scale),
            np.array([primitive.alpha for primitive in decomposition.primitives]) / scale,
            (norms.norm * scale ** (2 * norms.p))[:, 0],
            self_terms(plan, decomposition, plan.scale)[0],
            zero_modes(plan, decomposition, plan.scale)[0],
        )
    )
    first, second, slots = self_and_distinct_pairs(n_atoms, atoms.device)
    like = atoms.positions
    tables = SumTables(
        to_lattice=torch.from_numpy(plan.transform[0] * scale).to(like),
        points=torch.from_numpy(plan.images.points).to(like),
        indices=torch.from_numpy(2 * np.pi * plan.waves.points).to(like),
        constants=torch.from_numpy(constants).to(like),
        first=first,
        second=second,
        slots=slots.view(n_atoms, n_atoms),
    )
    return tables, plan.complete


def _pair_sums(
    positions: Tensor, cell: Tensor, tables: SumTables, primitives: tuple[Primitive, ...], complete: tuple[bool, ...]
) -> Tensor:
    """Sums of the primitives over all images. (n_primitives, N, N)"""
    scale, alpha, factor, own, background = tables.constants.unbind(0)
    lattice = tables.to_lattice @ cell
    across = torch.linalg.cross(lattice.roll(-1, 0), lattice.roll(-2, 0))
    signed_volume = (lattice[0] * across[0]).sum()
    dual, volume = across / signed_volume, signed_volume.abs()
    scaled = positions * scale[0]
    wrapped = scaled - torch.round((scaled @ dual.T).detach()) @ lattice
    difference = wrapped.index_select(0, tables.first) - wrapped.index_select(0, tables.second)
    vectors = difference - torch.round((difference @ dual.T).detach()) @ lattice  # (P, 3)
    shifted = vectors[:, None] + (tables.points @ lattice)  # (P, M, 3)
    x, y, z = shifted.unbind(2)
    pairs, images = (torch.arange(part.shape[0], device=cell.device) for part in (vectors, tables.points))
    real = pairs[:, None] + images > 0  # not an atom with itself
    squares = torch.where(real, x * x + y * y + z * z, 1.0)
    alphas = tuple(alpha[k] if primitive.alpha > 0 else None for k, primitive in enumerate(primitives))
    near = torch.where(real, radial_values(primitives, complete, alphas, squares), 0.0).sum(2)  # (n_primitives, P)
    sums = (near * factor[:, None]).index_select(1, tables.slots.reshape(-1)).unflatten(1, tables.slots.shape)
    constant = background * factor / volume
    itself = torch.eye(positions.shape[0], dtype=cell.dtype, device=cell.device)
    sums = sums + constant[:, None, None] - (own * factor)[:, None, None] * itself
    split = [k for k, whole in enumerate(complete) if not whole]
    if not split:
        return sums
    waves = tables.indices @ dual  # (W, 3)
    k2 = (waves * waves).sum(1)
    phases = wrapped @ waves.T
    basis = torch.cat((torch.cos(phases), torch.sin(phases)), dim=1)  # (N, 2 W)
    parts = list(sums.unbind(0))
    for k in split:
        weights = primitives[k].fourier(k2, alpha[k]) * (2 * factor[k] / volume)
        parts[k] = parts[k] + (basis * torch.cat((weights, weights))) @ basis.T
    return torch.stack(parts)
