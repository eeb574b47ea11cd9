"""P_i = sum_j S(r_i - r_j) q_j for every atom; without the matrix of pairs except where that is small."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_potnet.lattice.buckets import Bucket, gather_bucket, split_into_buckets
from ase_potnet.lattice.error_bounds import check_reachable, read_tolerance
from ase_potnet.lattice.neighbours import sum_over_neighbours
from ase_potnet.lattice.pair_sums import pair_costs
from ase_potnet.lattice.partial_periodicity import partial_fourier, partial_long_range, partial_long_range_field
from ase_potnet.lattice.plan import Costs, plan_sums
from ase_potnet.lattice.potentials.base import Decomposition, Potential, decompose
from ase_potnet.lattice.primitive_sums import primitive_pair_sums
from ase_potnet.lattice.reciprocal_space import fourier_weights
from ase_potnet.lattice.recomputing import recomputed
from ase_potnet.lattice.small_crystal import is_small_crystal, small_crystal_sums
from ase_potnet.lattice.source_waves import sum_sources_over_waves
from ase_potnet.lattice.structures import PeriodicFlags, Structures, is_finite, read_structures

_FEW_ATOMS = 40  # cos and sin of every wave up to here, factorised plane waves above (about)
_ROWS = 1 << 17  # pair values of a slab or wire held at a time
_KEPT_BLOCKS = 16  # of more blocks than these, derivatives compute again what they need


def site_sums(
    sources: Tensor,
    positions: Tensor,
    cell: Tensor,
    potentials: Potential | Sequence[Potential],
    *,
    pbc: PeriodicFlags = True,
    tolerance: float | None = 1e-8,
    field: bool = False,
    batch: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Potentials at every atom from sources on all atoms and their periodic images.

    Args:
        sources: (N, C), (B, N, C) or (T, C) with ``batch``: C channels per atom, dtype of positions.
        positions, cell, potentials, pbc, batch: as in ``pair_sums``.
        tolerance: largest absolute truncation error of each S_ij, so that of P_i is at most tolerance * sum |q_j|
            (and usually far below it, as in ``pair_sums``); rounding comes on top.
        field: also return minus the gradient of each potential at the site.

    Returns:
        (N, C, K), (B, N, C, K) or (T, C, K): P_i = sum_j S_ij q_j with the S_ij of ``pair_sums`` (the atom's own
        images included, the atom itself not). With ``field`` also (..., C, K, 3), in the unit of the potential
        per Å. Differentiable to every order in sources, positions and cell. Without ``field``, the matrix of pairs
        is used up to 90 + 5 min(C, 64) atoms, where it is the fastest way; else it is never formed. With three
        periodic directions the cost then grows as N^1.5 but for the search of neighbours (N^2, 4 to 8 ns a pair);
        slabs, wires and molecules cost N^2 time in bounded memory.

    Raises:
        ValueError: naming the argument that is wrong.
    """
    structures = read_structures(positions, cell, pbc, batch)
    decomposition = decompose(potentials)  # type: ignore[arg-type]
    flat = _read_sources(sources, positions, structures)
    dtype = structures.positions.dtype
    single, wanted = dtype == torch.float32, read_tolerance(tolerance, dtype)
    n_channels = flat.shape[1]
    plans = plan_sums(structures, decomposition, wanted, _SiteCosts(n_channels, field), single)
    pieces, owners = [], []
    for plan in plans:
        if tolerance is not None:
            check_reachable(plan, decomposition, dtype)
        if _has_matrix(len(flat), n_channels, field) and is_small_crystal(structures, plans):
            pairs = small_crystal_sums(structures, plan, decomposition)
            pieces.append((pairs @ flat).transpose(0, 1)[:, None])  # (n, 1, p, C)
            continue
        for members in split_into_buckets(structures, plan):
            bucket = gather_bucket(structures, plan, members)
            charges = flat[bucket.atoms]  # (S, n, C)
            real = None
            if bucket.is_padded:
                real = torch.from_numpy(np.arange(bucket.n_max) < bucket.n_atoms[:, None]).to(flat.device)
                charges = charges * real[..., None]
            if _has_matrix(bucket.n_max, n_channels, field):
                pairs = primitive_pair_sums(bucket, decomposition)  # (S, p, n, n)
                sums = (pairs @ charges[:, None]).transpose(1, 2)[:, :, None]
            else:
                sums = _bucket_site_sums(bucket, charges, decomposition, field)  # (S, n, 1 or 4, p, C)
                sums = sums * bucket.prefactors(decomposition)[:, None, None, :, None]
            pieces.append(sums.flatten(0, 1) if real is None else sums[real])
            owners.append(bucket.atoms.flatten() if real is None else bucket.atoms[real])
    total = pieces[0]  # (T, 1 or 4, p, C)
    if structures.n_structures > 1:
        total = torch.cat(pieces)[torch.argsort(torch.cat(owners))]
    if not decomposition.is_identity:
        matrix = torch.tensor(decomposition.coefficients, dtype=total.dtype, device=total.device)
        total = torch.einsum("kp,topc->tokc", matrix, total)
    total = total.permute(0, 3, 2, 1)  # (T, C, K, 1 or 4)
    shape = (*sources.shape, total.shape[2])
    potential = total[..., 0].reshape(shape)
    return (potential, total[..., 1:].reshape(*shape, 3)) if field else potential


def _read_sources(sources: Tensor, positions: Tensor, structures: Structures) -> Tensor:
    """Checked sources as (T, C). Raises ValueError."""
    if not isinstance(sources, Tensor):
        raise ValueError(f"sources must be a torch tensor, got {type(sources).__name__}")
    if sources.dtype != positions.dtype or sources.device != positions.device:
        raise ValueError(
            f"sources must have the dtype and device of positions ({positions.dtype}, {positions.device}), "
            f"got {sources.dtype}, {sources.device}"
        )
    if sources.shape[:-1] != positions.shape[:-1] or sources.ndim != positions.ndim or sources.shape[-1] == 0:
        raise ValueError(
            f"sources must have shape {(*positions.shape[:-1], 'C')} for positions of shape "
            f"{tuple(positions.shape)}, got {tuple(sources.shape)}"
        )
    if not is_finite(sources):
        raise ValueError("sources must be finite, got NaN or infinity")
    return sources.reshape(len(structures.positions), -1)


def _has_matrix(n_atoms: Any, n_channels: int, field: bool) -> Any:
    """Whether the matrix of pairs costs less than summing channel by channel (measured)."""
    return (n_atoms <= 90 + 5 * min(n_channels, 64)) & (not field)


@dataclass(frozen=True)
class _SiteCosts:
    """Cost model in ns, measured: an edge with its share of the search; a wave of an atom (products per channel)."""

    n_channels: int
    field: bool

    def __call__(self, n_atoms: NDArray[np.int64], n_split: int, d: int) -> Costs:
        n = n_atoms.astype(np.float64)
        matrix = pair_costs(n_atoms, n_split, d)
        has_matrix = _has_matrix(n, self.n_channels, self.field)
        if d < 3:
            real, wave = 0.5 * n * n * 100.0, n * n * 20.0 * n_split
        else:
            outputs = 3 if self.field else 1
            real = 0.5 * n * n * (60.0 + 30.0 * n_split * outputs)
            wave = n * (np.where(n < _FEW_ATOMS, 10.0, 1.5) + 0.2 * self.n_channels * (1 + n_split * outputs))
        return Costs(np.where(has_matrix, matrix.real, real), np.where(has_matrix, matrix.wave, wave))


def _bucket_site_sums(bucket: Bucket, charges: Tensor, decomposition: Decomposition, field: bool) -> Tensor:
    """Sums of the primitives, reduced units; the field follows the potential. (S, n_max, 1 or 4, n_primitives, C)"""
    sums = sum_over_neighbours(bucket, charges, bucket.terms(decomposition), field)
    if bucket.plan.split:
        sums = sums + _long_range_sums(bucket, charges, decomposition, field)
    if not field:
        return sums
    # the field is a derivative with respect to a length: back to Å
    unit = torch.from_numpy(bucket.host_scale).to(sums)[:, None, None, None, None]
    return torch.cat((sums[:, :, :1], sums[:, :, 1:] * unit), dim=2)


def _long_range_sums(bucket: Bucket, charges: Tensor, decomposition: Decomposition, field: bool) -> Tensor:
    """Long-range part of the split primitives, zero for the others. (S, n_max, 1 or 4, n_primitives, C)"""
    split, n_primitives = bucket.plan.split, len(decomposition.primitives)
    own = bucket.self_terms(decomposition)[:, None, :, None] * charges[:, :, None, :]  # (S, n, p, C)
    if bucket.plan.d == 3:
        waves, present = bucket.waves()
        terms = bucket.terms(decomposition)
        primitives, alphas = [decomposition.primitives[k] for k in split], [terms.alphas[k] for k in split]
        weights = fourier_weights(primitives, alphas, waves, bucket.volume)
        if present is not None:
            weights = weights * present[:, None]
        points = [_points_of(bucket, member) for member in bucket.members]
        long = sum_sources_over_waves(bucket.positions, bucket.dual, points, waves, weights, charges, field)
        constant = bucket.zero_mode(decomposition)
    else:
        long = _partial_sums(bucket, charges, decomposition, field)
        constant = bucket.logarithms(decomposition)
    if len(split) < n_primitives:
        columns = [torch.zeros_like(long[:, :, :, 0])] * n_primitives
        for place, k in enumerate(split):
            columns[k] = long[:, :, :, place]
        long = torch.stack(columns, dim=3)
    rest = constant[:, None, :, None] * charges.sum(1)[:, None, None, :] - own
    return torch.cat((long[:, :, :1] + rest[:, :, None], long[:, :, 1:]), dim=2)


def _points_of(bucket: Bucket, member: int) -> NDArray[np.float64]:
    """Integer wave vectors of one structure. (M, 3)"""
    waves = bucket.plan.waves
    return waves.points[waves.first[member] :][: waves.count[member]]


def _row_chunks(n: int, width: int) -> list[slice]:
    step = max(1, _ROWS // max(1, n * width))
    return [slice(start, min(start + step, n)) for start in range(0, n, step)]


def _partial_sums(bucket: Bucket, charges: Tensor, decomposition: Decomposition, field: bool) -> Tensor:
    """Long range of one slab or wire, a block of rows at a time. (1, n, 1 or 4, n_split, C)

    What derivatives want of one of many blocks is computed again for them, not kept.
    """
    parts = partial_fourier(bucket, decomposition)
    right, q = (bucket.positions[0], bucket.across[0]), charges[0]

    def block(positions: Tensor, across: Tensor) -> Tensor:
        left = (positions, across)
        columns = [(partial_long_range(left, right, parts) @ q)[:, :, None]]  # (p, I, 1, C)
        if field:
            gradient = partial_long_range_field(left, right, parts)  # (p, I, J, 3)
            columns.append(torch.einsum("pijx,jc->pixc", gradient, q))
        return torch.cat(columns, dim=2).permute(1, 2, 0, 3)

    chunks = _row_chunks(bucket.n_max, 4 * len(parts.alphas))
    if len(chunks) <= _KEPT_BLOCKS or not torch.is_grad_enabled():
        return torch.cat([block(right[0][some], right[1][some]) for some in chunks])[None]
    return torch.cat([recomputed(block, right[0][some], right[1][some]) for some in chunks])[None]
