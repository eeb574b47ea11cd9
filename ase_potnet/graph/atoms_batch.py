"""Structures of any source as one batch of tensors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from pymatgen.core.structure import IMolecule, IStructure

    Structure: TypeAlias = Atoms | IStructure | IMolecule | tuple[Any, Any, Any, Any]
else:
    Structure: TypeAlias = Any

_MAX_NUMBER = 118
_FLATTEST = 1e-6  # volume of a cell over the product of the lengths of its vectors
_Array: TypeAlias = NDArray[Any]


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

    def near_origin(self) -> AtomsBatch:
        """The same crystals with their atoms moved by lattice vectors next to the first, and their mean to the origin.

        float32 is finest there. Energies, forces and stresses do not change.
        """
        vectors = self.cell * self.pbc.to(self.cell)[:, :, None]
        first = torch.cumsum(self.n_atoms, 0) - self.n_atoms
        positions = self.positions - self.positions[first][self.batch]
        scaled = (positions[:, None] @ torch.linalg.pinv(vectors)[self.batch])[:, 0]
        wrapped = positions - (torch.round(scaled)[:, None] @ vectors[self.batch])[:, 0]
        sums = wrapped.new_zeros(self.n_structures, 3).index_add_(0, self.batch, wrapped)
        return replace(self, positions=wrapped - (sums / self.n_atoms[:, None])[self.batch])

    def in_precision(self, dtype: torch.dtype) -> AtomsBatch:
        """The same crystals in another dtype, in float32 with their atoms near the origin."""
        return (self.near_origin() if dtype == torch.float32 else self).to(dtype=dtype)

    def moved(self, positions: Tensor, cell: Tensor) -> AtomsBatch:
        """The same atoms at other positions in other cells."""
        return replace(self, positions=positions, cell=cell)

    def select(self, members: NDArray[np.int64]) -> tuple[AtomsBatch, Tensor]:
        """Some structures, in the order of their indices ``members`` (host), and the rows of their atoms. (t,)"""
        n_atoms = self.n_atoms.cpu().numpy()
        first, sizes = (np.cumsum(n_atoms) - n_atoms)[members], n_atoms[members]
        owner = np.repeat(np.arange(len(members)), sizes)
        within = np.arange(len(owner)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        rows = torch.from_numpy(first[owner] + within).to(self.device)
        chosen = torch.from_numpy(members)
        part = AtomsBatch(
            numbers=self.numbers[rows],
            positions=self.positions[rows],
            cell=self.cell[chosen.to(self.device)],
            pbc=self.pbc[chosen],
            batch=torch.from_numpy(owner).to(self.device),
        )
        return part, rows


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
    arrays = [_read(structure, f"structures[{index}]") for index, structure in enumerate(as_many(structures))]
    if not arrays:
        raise ValueError("structures must hold at least one structure, got none")
    parts = [list(column) for column in zip(*arrays, strict=True)]
    numbers, positions = np.concatenate(parts[0]), np.concatenate(parts[1])
    cells, pbc = np.stack(parts[2]), np.stack(parts[3])
    owner = np.repeat(np.arange(len(arrays)), [len(part) for part in parts[0]])
    check_values(numbers, positions, cells, pbc, owner)
    return AtomsBatch(
        numbers=torch.from_numpy(numbers).to(device),
        positions=torch.from_numpy(positions).to(device=device, dtype=dtype),
        cell=torch.from_numpy(cells).to(device=device, dtype=dtype),
        pbc=torch.from_numpy(pbc),
        batch=torch.from_numpy(owner).to(device),
    )


def batch_for_prediction(
    structures: Structure | Iterable[Structure], dtype: torch.dtype, device: torch.device | str
) -> AtomsBatch:
    """``batch_structures``, in float32 with the atoms near the origin."""
    return batch_structures(structures, device=device).in_precision(dtype)


def as_many(structures: Any) -> Iterable[Any]:
    """One structure as a list of one."""
    one = _is_structure(structures) or (_is_tuple_structure(structures) and not any(map(_is_any, structures)))
    return [structures] if one else structures


def _is_any(candidate: Any) -> bool:
    return _is_structure(candidate) or (_is_tuple_structure(candidate) and np.ndim(candidate[1]) == 2)


def _is_structure(candidate: object) -> bool:
    return isinstance(candidate, Atoms) or _is_pymatgen(candidate)


def _is_tuple_structure(candidate: Any) -> bool:
    """Whether it can be numbers, positions, cell and pbc."""
    return isinstance(candidate, tuple) and len(candidate) == 4


def _is_pymatgen(structure: object) -> bool:
    """Whether it is a pymatgen structure or molecule; pymatgen is not imported."""
    return hasattr(structure, "is_ordered") and hasattr(structure, "cart_coords")


def _read(structure: Any, name: str) -> tuple[_Array, _Array, _Array, _Array]:
    """Numbers, positions, cell and periodic flags of one structure, their shapes checked. Raises ValueError."""
    if isinstance(structure, Atoms):
        arrays = structure.arrays
        raw = (arrays["numbers"], arrays["positions"], structure.cell.array, structure.pbc)
    elif _is_pymatgen(structure):
        lattice = getattr(structure, "lattice", None)
        periodic = (False,) * 3 if lattice is None else lattice.pbc
        numbers = _ordered_numbers(structure, name)
        raw = (numbers, structure.cart_coords, None if lattice is None else lattice.matrix, periodic)
    elif isinstance(structure, Sequence) and len(structure) == 4:
        raw = tuple(structure)
        if np.asarray(raw[0]).dtype.kind not in "iu":
            raise ValueError(f"{name} must have integer atomic numbers, got {raw[0]!r}")
    else:
        raise ValueError(
            f"{name} must be ASE Atoms, a pymatgen Structure or Molecule, or (numbers, positions, cell, pbc), "
            f"got {type(structure).__name__}"
        )
    try:
        numbers = np.asarray(raw[0], dtype=np.int64)
        positions = np.asarray(raw[1], dtype=np.float64)
        cell = np.zeros((3, 3)) if raw[2] is None else np.asarray(raw[2], dtype=np.float64)
        flags = np.asarray(raw[3])
        if flags.dtype != np.bool_ and not np.isin(flags, (0, 1)).all():
            raise ValueError(f"pbc must be booleans, got {raw[3]!r}")
        flags = flags.astype(bool)
        pbc = flags if flags.shape == (3,) else np.broadcast_to(flags, 3)
    except (TypeError, ValueError, RuntimeError) as error:  # torch's RuntimeError: tensors with gradients
        raise ValueError(f"{name} must hold numbers, positions, cell and pbc as arrays: {error}") from error
    if numbers.ndim != 1 or positions.shape != (len(numbers), 3) or cell.shape != (3, 3):
        raise ValueError(
            f"{name} must have numbers (N,), positions (N, 3) and cell (3, 3), "
            f"got {numbers.shape}, {positions.shape}, {cell.shape}"
        )
    if len(numbers) == 0:
        raise ValueError(f"{name} must have at least one atom, got none")
    return numbers, positions, cell, pbc


def check_values(
    numbers: _Array, positions: _Array, cells: _Array, pbc: _Array, owner: _Array, *, name: str = "structures"
) -> None:
    """Raise ValueError naming the first structure whose values cannot be right; all structures are looked at at once.

    numbers (T,), positions (T, 3) Å, cells (B, 3, 3) Å, pbc (B, 3), owner (T,) structure of every atom.
    """
    unknown = np.flatnonzero((numbers < 1) | (numbers > _MAX_NUMBER))
    if len(unknown):
        where, wrong = f"{name}[{owner[unknown[0]]}]", numbers[unknown[0]]
        raise ValueError(f"{where} must hold atomic numbers from 1 to {_MAX_NUMBER}, got {wrong}")
    if not np.isfinite(positions).all():
        first = owner[np.flatnonzero(~np.isfinite(positions).all(1))[0]]
        raise ValueError(f"{name}[{first}] must have finite positions, got NaN or infinity")
    if not np.isfinite(cells).all():
        first = np.flatnonzero(~np.isfinite(cells).all((1, 2)))[0]
        raise ValueError(f"{name}[{first}] must have a finite cell, got NaN or infinity")
    # volume (area, length) of the periodic vectors over the product of their lengths; unit vectors for the others
    cells = cells.astype(np.float64)
    lengths = np.sqrt((cells * cells).sum(2))
    rows = np.where(pbc, 1 / np.maximum(lengths, 1e-300), 0.0)[..., None] * cells
    gram = rows @ rows.transpose(0, 2, 1) + np.where(pbc, 0.0, 1.0)[..., None] * np.eye(3)
    flat = np.linalg.det(gram) <= _FLATTEST**2
    if flat.any():
        first = np.flatnonzero(flat)[0]
        raise ValueError(
            f"{name}[{first}] must have independent periodic lattice vectors, got the cell {cells[first].tolist()}"
        )


def _ordered_numbers(structure: Any, name: str) -> Any:
    if not structure.is_ordered:
        raise ValueError(f"{name} must be ordered, got partial occupancies: {structure.formula}")
    return structure.atomic_numbers
