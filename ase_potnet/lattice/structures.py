"""Checked input of the lattice sums: one structure, a stack of equal ones or a ragged batch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

PeriodicFlags = bool | tuple[bool, bool, bool] | list[bool] | NDArray[np.bool_] | Tensor


@dataclass(frozen=True)
class Structures:
    """A batch of structures, atoms of one structure consecutive.

    positions: (T, 3) Å. cell: (B, 3, 3) Å, rows are lattice vectors. Host copies (numpy, float64): host_cell
    (B, 3, 3), pbc (B, 3), n_atoms (B,), first_atom (B,). layout: "single", "stacked" or "ragged".
    """

    positions: Tensor
    cell: Tensor
    host_cell: NDArray[np.float64]
    pbc: NDArray[np.bool_]
    n_atoms: NDArray[np.int64]
    first_atom: NDArray[np.int64]
    layout: str

    @property
    def n_structures(self) -> int:
        return len(self.n_atoms)


def read_structures(positions: Tensor, cell: Tensor, pbc: PeriodicFlags, batch: Tensor | None) -> Structures:
    """Check the arguments of a lattice sum. Raises ValueError naming the argument."""
    _check_tensor("positions", positions)
    _check_tensor("cell", cell)
    if cell.dtype != positions.dtype or cell.device != positions.device:
        raise ValueError(
            f"cell must have the dtype and device of positions ({positions.dtype}, {positions.device}), "
            f"got {cell.dtype}, {cell.device}"
        )
    if positions.shape[-1:] != (3,) or positions.ndim not in (2, 3):
        raise ValueError(f"positions must have shape (N, 3) or (B, N, 3), got {tuple(positions.shape)}")
    if batch is not None:
        layout = "ragged"
        if positions.ndim != 2:
            raise ValueError(f"positions must have shape (T, 3) beside batch, got {tuple(positions.shape)}")
        wanted: tuple[int, ...] = (cell.shape[0] if cell.ndim == 3 else 1, 3, 3)
    elif positions.ndim == 3:
        layout, wanted = "stacked", (positions.shape[0], 3, 3)
    else:
        layout, wanted = "single", (3, 3)
    if tuple(cell.shape) != wanted:
        raise ValueError(
            f"cell must have shape {'(B, 3, 3)' if batch is not None else wanted} for positions of shape "
            f"{tuple(positions.shape)}, got {tuple(cell.shape)}"
        )
    cell = cell.reshape(-1, 3, 3)
    n_structures = cell.shape[0]
    n_atoms = _count_atoms(positions, batch, n_structures)
    if n_structures == 0 or 0 in n_atoms.tolist():
        raise ValueError("positions must hold at least one atom of every structure")
    host_cell = cell.detach().cpu().numpy().astype(np.float64)
    if not np.isfinite(host_cell).all():
        raise ValueError("cell must be finite, got NaN or infinity")
    flat = positions.reshape(-1, 3)
    if not is_finite(flat):
        raise ValueError("positions must be finite, got NaN or infinity")
    return Structures(
        positions=flat,
        cell=cell,
        host_cell=host_cell,
        pbc=_periodic_flags(pbc, n_structures),
        n_atoms=n_atoms,
        first_atom=np.cumsum(n_atoms) - n_atoms,
        layout=layout,
    )


def is_finite(values: Tensor) -> bool:
    """Whether all values are: a finite sum has finite terms, and is one reduction."""
    values = values.detach()
    return math.isfinite(float(values.sum())) or bool(torch.isfinite(values).all())


def complete_pairs(batch: Tensor) -> Tensor:
    """Atom indices (i, j) of the rows that ``pair_sums(..., batch=batch)`` returns: all pairs of each structure.

    batch: (T,) sorted structure index. Returns (2, n_pairs), structure by structure, row-major in (i, j).
    """
    counts = torch.bincount(batch)
    first = torch.cumsum(counts, 0) - counts
    i = torch.repeat_interleave(torch.arange(len(batch), device=batch.device), counts[batch])
    n_before = torch.cumsum(counts[batch], 0) - counts[batch]
    j = torch.arange(len(i), device=batch.device) - n_before[i] + first[batch[i]]
    return torch.stack((i, j))


def _check_tensor(name: str, value: Tensor) -> None:
    if not isinstance(value, Tensor):
        raise ValueError(f"{name} must be a torch tensor, got {type(value).__name__}")
    if value.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"{name} must be float32 or float64, got {value.dtype}")


def _count_atoms(positions: Tensor, batch: Tensor | None, n_structures: int) -> NDArray[np.int64]:
    if batch is None:
        return np.full(n_structures, positions.shape[-2], dtype=np.int64)
    if not isinstance(batch, Tensor) or batch.dtype not in (torch.int64, torch.int32) or batch.ndim != 1:
        raise ValueError("batch must be a one-dimensional integer tensor, the structure index of every atom")
    if batch.shape[0] != positions.shape[0]:
        raise ValueError(f"batch must have one entry per atom ({positions.shape[0]}), got {batch.shape[0]}")
    if batch.device != positions.device:
        raise ValueError(f"batch must be on the device of positions ({positions.device}), got {batch.device}")
    index = batch.cpu().numpy()
    if len(index) and (index[0] < 0 or index[-1] >= n_structures or (np.diff(index) < 0).any()):
        raise ValueError(f"batch must be sorted, with entries from 0 to {n_structures - 1} (one per cell)")
    return np.bincount(index, minlength=n_structures).astype(np.int64)


def _periodic_flags(pbc: PeriodicFlags, n_structures: int) -> NDArray[np.bool_]:
    if isinstance(pbc, bool):
        return np.full((n_structures, 3), pbc)
    flags = np.asarray(pbc.cpu() if isinstance(pbc, Tensor) else pbc)
    if flags.dtype != np.bool_:
        if not np.isin(flags, (0, 1)).all():
            raise ValueError(f"pbc must hold booleans, got {pbc!r}")
        flags = flags.astype(bool)
    if flags.shape not in ((), (3,), (n_structures, 3)):
        raise ValueError(f"pbc must be one flag, three flags or shape ({n_structures}, 3), got {flags.shape}")
    return np.broadcast_to(flags, (n_structures, 3)).copy()
