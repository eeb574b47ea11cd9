"""Vectors between the distinct pairs of atoms of a bucket."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ase_potnet.lattice.buckets import Bucket
from ase_potnet.lattice.real_space import FAR_AWAY


@lru_cache(maxsize=64)
def distinct_pairs(n: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """First and second atom of each pair of different atoms; those of the first m atoms come first. (P,) each"""
    second, first = np.tril_indices(n, -1)
    return torch.from_numpy(first).to(device), torch.from_numpy(second).to(device)


def pair_vectors(bucket: Bucket) -> Tensor:
    """r_first - r_second of ``distinct_pairs``, moved by lattice vectors into the cell around the origin. (S, 3, P)

    Pairs that a smaller structure of the bucket does not have lie far away. Raises ValueError where two atoms coincide.
    """
    positions = bucket.positions
    first, second = distinct_pairs(bucket.n_max, positions.device)
    # one-dimensional gathers: torch gathers along the last of several axes twenty times more slowly
    offset = torch.arange(len(positions), device=positions.device)[:, None] * bucket.n_max
    one, other = (offset + first).view(-1), (offset + second).view(-1)
    columns = positions.reshape(-1, 3).T.contiguous()
    vectors = torch.stack(
        [(c.index_select(0, one) - c.index_select(0, other)).view(len(positions), -1) for c in columns], dim=1
    )
    if bucket.plan.d > 0:
        turns = torch.round(bucket.dual.detach() @ vectors.detach())
        vectors = torch.baddbmm(vectors, bucket.lattice.transpose(1, 2), turns, alpha=-1)
    if bucket.is_padded:
        n_atoms = torch.from_numpy(bucket.n_atoms).to(vectors.device)
        slot = torch.arange(len(first), device=vectors.device)
        absent = slot >= (n_atoms * (n_atoms - 1) // 2)[:, None]
        vectors = vectors.masked_fill(absent[:, None], FAR_AWAY)
    if len(first) and float(vectors.detach().abs().amax(1).min()) < 1e-10:
        raise ValueError("positions must differ, got two atoms of a structure at the same place")
    return vectors
