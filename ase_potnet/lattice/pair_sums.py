"""S_ij = sum_n phi(|r_i - r_j + n L|) for all pairs of atoms, exact to a tolerance."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_potnet.lattice.buckets import Bucket, gather_bucket, split_into_buckets
from ase_potnet.lattice.error_bounds import check_reachable, check_tolerance
from ase_potnet.lattice.partial_periodicity import partial_fourier, partial_long_range
from ase_potnet.lattice.pair_bounds import pair_bounds
from ase_potnet.lattice.plan import Costs, Plan, plan_sums
from ase_potnet.lattice.potentials.base import Decomposition, Potential, decompose
from ase_potnet.lattice.real_space import FAR_AWAY, sum_over_images
from ase_potnet.lattice.reciprocal_space import fourier_weights, sum_over_waves
from ase_potnet.lattice.structures import PeriodicFlags, Structures, read_structures


def pair_sums(
    positions: Tensor,
    cell: Tensor,
    potentials: Potential | Sequence[Potential],
    *,
    pbc: PeriodicFlags = True,
    tolerance: float = 1e-8,
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
            comes on top: about machine epsilon times the largest single term.
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
    single = structures.positions.dtype == torch.float32
    limits = np.full(structures.n_structures, check_tolerance(tolerance))
    plans = plan_sums(structures, decomposition, limits, _pair_costs, single)
    pieces, owners = [], []
    for plan in plans:
        check_reachable(plan, decomposition, structures.positions.dtype)
        for members in split_into_buckets(structures, plan):
            bucket = gather_bucket(structures, plan, members)
            sums = _recombine(_bucket_sums(bucket, decomposition), decomposition)
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


def _pair_costs(n_atoms: NDArray[np.int64], n_split: int, d: int) -> Costs:
    """Measured in ns: one image of one pair (distance, erfc, exp, sums), one wave vector (cos, sin, products)."""
    n = n_atoms.astype(np.float64)
    quadrature = 1.0 if d == 3 else 30.0
    return Costs(
        real=(0.5 * n * (n - 1) + 1) * (30.0 + 15.0 * n_split),
        wave=n * 12.0 + 10.0 + n * n * (0.25 * n_split * quadrature),
    )


@lru_cache(maxsize=128)
def _pair_slots(n: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """First and second atom of each distinct pair, slot 0 for the self pair, and the slot of every (i, j).

    The pairs of the first m atoms come first, so that smaller structures of a bucket use a prefix.
    """
    second, first = np.tril_indices(n, -1)
    slots = np.zeros((n, n), dtype=np.int64)
    slots[first, second] = slots[second, first] = np.arange(1, len(first) + 1)
    return np.append(0, first), np.append(0, second), slots.reshape(-1)


def _bucket_sums(bucket: Bucket, decomposition: Decomposition) -> Tensor:
    """Sums of the primitives of one bucket. (S, n_primitives, n_max, n_max)"""
    n = bucket.n_max
    _, _, slots = _pair_slots(n)
    distinct = real_space_sums(bucket, decomposition, bucket.squared_cutoff())  # (S, n_primitives, P)
    sums = distinct.index_select(2, torch.from_numpy(slots).to(distinct.device)).view(*distinct.shape[:2], n, n)
    split = bucket.plan.split
    if split:
        if bucket.plan.d == 3:
            constant, long = bucket.zero_mode(decomposition), _reciprocal_sums(bucket, decomposition)
        else:
            atoms = (bucket.positions[0], bucket.across[0])
            constant = bucket.logarithms(decomposition)
            long = partial_long_range(atoms, atoms, partial_fourier(bucket, decomposition))[None]
        eye = torch.eye(n, dtype=sums.dtype, device=sums.device)
        rest = constant[:, :, None, None] - bucket.self_terms(decomposition)[:, :, None, None] * eye
        if len(split) == len(decomposition.primitives):
            sums = sums + long + rest
        else:
            sums = torch.stack(
                [
                    sums[:, k] + long[:, split.index(k)] + rest[:, k] if k in split else sums[:, k]
                    for k in range(sums.shape[1])
                ],
                dim=1,
            )
    return sums * bucket.prefactors(decomposition)[:, :, None, None]


def real_space_sums(bucket: Bucket, decomposition: Decomposition, cutoff2: Tensor) -> Tensor:
    """Real-space part of the distinct pairs of one bucket, reduced units. (S, n_primitives, P)"""
    first, second, _ = _pair_slots(bucket.n_max)
    vectors = _pair_vectors(bucket, torch.from_numpy(first), torch.from_numpy(second))
    return sum_over_images(vectors, bucket.images(), cutoff2, bucket.terms(decomposition), omit_origin=True)


def _pair_vectors(bucket: Bucket, first: Tensor, second: Tensor) -> Tensor:
    """r_i - r_j, moved by lattice vectors into the cell around the origin; padding far away. (S, 3, P)"""
    positions = bucket.positions.transpose(1, 2)
    device = positions.device
    vectors = positions.index_select(2, first.to(device)) - positions.index_select(2, second.to(device))
    if bucket.plan.d > 0:
        with torch.no_grad():
            turns = torch.round(bucket.dual @ vectors)
        vectors = vectors - bucket.lattice.transpose(1, 2) @ turns
    if vectors.shape[2] > 1:
        apart = vectors.detach()[:, :, 1:].abs().amax(1)
        if float(apart.min()) < 1e-10:
            raise ValueError("positions must differ, got two atoms of a structure at the same place")
    if bucket.is_padded:
        n_pairs = torch.from_numpy(bucket.n_atoms * (bucket.n_atoms - 1) // 2 + 1).to(device)
        slot = torch.arange(len(first), device=device)
        vectors = vectors.masked_fill((slot >= n_pairs[:, None])[:, None], FAR_AWAY)
    return vectors


def _reciprocal_sums(bucket: Bucket, decomposition: Decomposition) -> Tensor:
    """Reciprocal part of the split primitives without k = 0, reduced units. (S, n_split, n_max, n_max)"""
    waves, present = bucket.waves()
    split = bucket.plan.split
    terms = bucket.terms(decomposition)
    weights = fourier_weights(
        [decomposition.primitives[k] for k in split],
        [terms.alphas[k] for k in split],
        waves,
        bucket.volume,
    )
    if present is not None:
        weights = weights * present[:, None]
    return sum_over_waves(bucket.positions, waves, weights)


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
