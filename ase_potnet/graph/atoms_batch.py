"""Structures of any source as one batch of tensors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

if TYPE_CHECKING:
    from pymatgen.core import IMolecule, IStructure

    Structure: TypeAlias = Atoms | IStructure | IMolecule | tuple[Any, Any, Any, Any]
else:
    Structure: TypeAlias = Any

_MAX_NUMBER = 118


@dataclass(frozen=True)
class AtomsBatch:
    """B structures of T atoms in all, the atoms of a structure consecutive.

    numbers: (T,) atomic numbers, int64
    positions: (T, 3) Å
    cell: (B, 3, 3) Å, rows are lattice vectors; rows of non-periodic directions may be zero
    pbc: (B, 3) bool, always on the host
    batch: (T,) structure of every atom, int64
    """

    numbers: Tensor
    positions: Tensor
    cell: Tensor
    pbc: Tensor
    batch: Tensor

    @property
    def n_structures(self) -> int:
        return self.cell.shape[0]

    @property
    def n_atoms(self) -> Tensor:
        """Atoms of every structure, on the device. (B,)"""
        return torch.bincount(self.batch, minlength=self.n_structures)

    @property
    def device(self) -> torch.device:
        return self.positions.device

    @property
    def dtype(self) -> torch.dtype:
        return self.positions.dtype

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> AtomsBatch:
        """The same batch on another device or with positions and cell of another dtype."""
        return AtomsBatch(
            numbers=self.numbers.to(device),
            positions=self.positions.to(device=device, dtype=dtype),
            cell=self.cell.to(device=device, dtype=dtype),
            pbc=self.pbc,
            batch=self.batch.to(device),
        )

    def moved(self, positions: Tensor, cell: Tensor) -> AtomsBatch:
        """The same atoms at other positions in other cells."""
        return replace(self, positions=positions, cell=cell)


def batch_structures(
    structures: Structure | Iterable[Structure],
    *,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> AtomsBatch:
    """One or several structures as a batch.

    Args:
        structures: ASE ``Atoms``, pymatgen ``Structure`` or ``Molecule``, tuples (numbers (N,), positions (N, 3) Å,
            cell (3, 3) Å or None, pbc one or three flags), or an iterable of these.
        dtype: of positions and cells.
        device: where the tensors live (``pbc`` stays on the host).

    Raises:
        ValueError: naming ``structures`` and the index of one that is empty, not finite, of another type, periodic
            without volume, or that holds something else than elements.
    """
    if isinstance(structures, (Atoms, tuple)) or _is_pymatgen(structures):
        structures = [structures]
    arrays = [_read(structure, f"structures[{index}]") for index, structure in enumerate(structures)]
    if not arrays:
        raise ValueError("structures must hold at least one structure, got none")
    numbers, positions, cells, pbc = (list(column) for column in zip(*arrays, strict=True))
    counts = torch.tensor([len(part) for part in numbers])
    return AtomsBatch(
        numbers=torch.from_numpy(np.concatenate(numbers)).to(device),
        positions=torch.from_numpy(np.concatenate(positions)).to(device=device, dtype=dtype),
        cell=torch.from_numpy(np.stack(cells)).to(device=device, dtype=dtype),
        pbc=torch.from_numpy(np.stack(pbc)),
        batch=torch.repeat_interleave(torch.arange(len(counts)), counts).to(device),
    )


def _is_pymatgen(structure: object) -> bool:
    """Whether it is a pymatgen structure or molecule; pymatgen is not imported."""
    return hasattr(structure, "atomic_numbers") and hasattr(structure, "cart_coords")


def _read(structure: Any, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Checked numbers, positions, cell and periodic flags of one structure. Raises ValueError."""
    if isinstance(structure, Atoms):
        raw = (structure.numbers, structure.positions, structure.cell.array, structure.pbc)
    elif _is_pymatgen(structure):
        lattice = getattr(structure, "lattice", None)
        periodic = (False,) * 3 if lattice is None else lattice.pbc
        numbers = _ordered_numbers(structure, name)
        raw = (numbers, structure.cart_coords, None if lattice is None else lattice.matrix, periodic)
    elif isinstance(structure, Sequence) and len(structure) == 4:
        raw = tuple(structure)
    else:
        raise ValueError(
            f"{name} must be ASE Atoms, a pymatgen Structure or Molecule, or (numbers, positions, cell, pbc), "
            f"got {type(structure).__name__}"
        )
    numbers = np.array(raw[0], dtype=np.int64)
    positions = np.array(raw[1], dtype=np.float64)
    cell = np.zeros((3, 3)) if raw[2] is None else np.array(raw[2], dtype=np.float64)
    pbc = np.broadcast_to(np.asarray(raw[3], dtype=bool), 3)
    if numbers.ndim != 1 or positions.shape != (len(numbers), 3) or cell.shape != (3, 3):
        raise ValueError(
            f"{name} must have numbers (N,), positions (N, 3) and cell (3, 3), "
            f"got {numbers.shape}, {positions.shape}, {cell.shape}"
        )
    if len(numbers) == 0:
        raise ValueError(f"{name} must have at least one atom, got none")
    if numbers.min() < 1 or numbers.max() > _MAX_NUMBER:
        wrong = numbers[(numbers < 1) | (numbers > _MAX_NUMBER)][0]
        raise ValueError(f"{name} must hold atomic numbers from 1 to {_MAX_NUMBER}, got {wrong}")
    if not np.isfinite(positions).all():
        raise ValueError(f"{name} must have finite positions, got NaN or infinity")
    if not np.isfinite(cell).all():
        raise ValueError(f"{name} must have a finite cell, got NaN or infinity")
    lengths = np.linalg.norm(cell[pbc], axis=1)
    if pbc.any() and (not lengths.all() or np.linalg.matrix_rank(cell[pbc] / lengths[:, None], tol=1e-6) < pbc.sum()):
        raise ValueError(f"{name} must have independent periodic lattice vectors, got the cell {cell.tolist()}")
    return numbers, positions, cell, pbc


def _ordered_numbers(structure: Any, name: str) -> Any:
    if not structure.is_ordered:
        raise ValueError(f"{name} must be ordered, got partial occupancies: {structure.formula}")
    return structure.atomic_numbers
