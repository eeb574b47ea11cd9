"""S_ij = sum_n phi(|r_i - r_j + n L|) for all pairs of atoms, exact to a tolerance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_potnet.lattice.buckets import Bucket, gather_bucket, split_into_buckets
from ase_potnet.lattice.error_bounds import check_reachable, read_tolerance
from ase_potnet.lattice.pair_bounds import pair_bounds
from ase_potnet.lattice.plan import Costs, plan_sums
from ase_potnet.lattice.potentials.base import Decomposition, Potential, decompose
from ase_potnet.lattice.primitive_sums import primitive_pair_sums, real_space_sums
from ase_potnet.lattice.small_crystal import is_small_crystal, small_crystal_sums
from ase_potnet.lattice.structures import PeriodicFlags, Structures, read_structures


def pair_sums(
    positions: Tensor,
    cell: Tensor,
    potentials: Potential | Sequence[Potential],
    *,
    pbc: PeriodicFlags = True,
    tolerance: float | None = 1e-8,
    batch: Tensor | None = None,
    return_bound: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Infinite lattice sums of pair potentials between all atoms of each structure.

    Args:
        positions: (N, 3), (B, N, 3), or (T, 3) with ``batch``; Å, float32 or float64.
        cell: (3, 3) or (B, 3, 3), rows are lattice vectors, Å. Non-periodic rows are ignored and may be zero.
        potentials: K potentials, e.g. ``(Coulomb(), London(), Pauli(3.0))``.
        pbc: one flag, three, or (B, 3).
        tolerance: largest absolute truncation error of any sum, in the unit of the potential (Å^-n). Rounding
            comes on top: about machine epsilon times the largest single term. None: 1e-5 in float32, 1e-11 in
            float64, also where rounding alone exceeds that, which is an error for a tolerance that was asked for.
        batch: (T,) sorted structure index of every atom, for a ragged batch.
        return_bound: also return a proven bound on the error.

    Returns:
        (N, N, K), (B, N, N, K), or (sum of N_b^2, K) in the order of ``complete_pairs(batch)``: the sum over all
        periodic images of j, the term at zero distance left out. Power laws 1/r^n with n < d, d the number of
        periodic directions, carry a neutralising background (analytic continuation in n); n = d is Hadamard's
        finite part. Differentiable to every order in positions and cell. With return_bound, also (K,) or (B, K).

    Raises:
        ValueError: naming the argument that is wrong.
    """
    structures = read_structures(positions, cell, pbc, batch)
    decomposition = decompose(potentials)  # type: ignore[arg-type]
    dtype = structures.positions.dtype
    single, wanted = dtype == torch.float32, read_tolerance(tolerance, dtype)
    plans = plan_sums(structures, decomposition, wanted, pair_costs, single)
    pieces, owners = [], []
    for plan in plans:
        if tolerance is not None:
            check_reachable(plan, decomposition, dtype)
        if is_small_crystal(structures, plans):
            sums = small_crystal_sums(structures, plan, decomposition)
            pieces.append(_recombine(sums[None], decomposition).reshape(-1, len(decomposition.coefficients)))
            owners.append(plan.index)
            continue
        for members in split_into_buckets(structures, plan):
            bucket = gather_bucket(structures, plan, members)
            sums = _recombine(primitive_pair_sums(bucket, decomposition), decomposition)
            pieces.append(_flatten(bucket, sums))
            owners.append(plan.index[members])
    result = _restore_order(pieces, owners, structures)
    if structures.layout != "ragged":
        n = int(structures.n_atoms[0])
        shape = (n, n) if structures.layout == "single" else (structures.n_structures, n, n)
        result = result.view(*shape, -1)
    if not return_bound:
        return result
    bound = pair_bounds(structures, plans, decomposition, real_space_sums)
    return result, bound[0] if structures.layout == "single" else bound


def pair_costs(n_atoms: NDArray[np.int64], n_split: int, d: int) -> Costs:
    """Measured in ns: one image of one pair (distance, erfc, exp, sums), one wave vector (cos, sin, products)."""
    n = n_atoms.astype(np.float64)
    quadrature = 1.0 if d == 3 else 30.0
    return Costs(
        real=(0.5 * n * (n - 1) + 1) * (30.0 + 15.0 * n_split),
        wave=n * 12.0 + 10.0 + n * n * (0.25 * n_split * quadrature),
    )


def _recombine(sums: Tensor, decomposition: Decomposition) -> Tensor:
    """Primitives to potentials, potentials last. (S, n_primitives, n, n) -> (S, n, n, K)"""
    if decomposition.is_identity:
        return sums.permute(0, 2, 3, 1)
    matrix = torch.tensor(decomposition.coefficients, dtype=sums.dtype, device=sums.device)
    return torch.einsum("kp,spij->sijk", matrix, sums)


def _flatten(bucket: Bucket, sums: Tensor) -> Tensor:
    """Rows of the real pairs only. (S, n, n, K) -> (n_pairs, K)"""
    if not bucket.is_padded:
        return sums.reshape(-1, sums.shape[-1])
    real = np.arange(bucket.n_max) < bucket.n_atoms[:, None]
    keep = np.flatnonzero(real[:, :, None] & real[:, None, :])
    return sums.reshape(-1, sums.shape[-1])[torch.from_numpy(keep).to(sums.device)]


def _restore_order(pieces: list[Tensor], owners: list[NDArray[np.int64]], structures: Structures) -> Tensor:
    """Rows in the order of the structures."""
    if structures.n_structures == 1:
        return pieces[0]
    flat = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
    order = np.concatenate(owners)
    if (np.diff(order) > 0).all():
        return flat
    n_rows = structures.n_atoms[order] ** 2
    start = np.empty_like(n_rows)
    start[order] = np.cumsum(n_rows) - n_rows
    in_order = structures.n_atoms**2
    rows = np.repeat(start - (np.cumsum(in_order) - in_order), in_order) + np.arange(int(in_order.sum()))
    return flat[torch.from_numpy(rows).to(flat.device)]
