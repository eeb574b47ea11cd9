"""Graphs as torch-geometric data, and structures back from them."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch

from ase_potnet.graph.atoms_batch import AtomsBatch, check_values
from ase_potnet.graph.graph import Graph


def to_pyg(graph: Graph | AtomsBatch) -> Any:
    """A ``torch_geometric.data.Batch`` with one ``Data`` a structure.

    z (N,), pos (N, 3) Å, cell (1, 3, 3) Å, pbc (1, 3); with local edges also edge_index (2, E), row 0 the sender
    and row 1 the receiver, and edge_shift (E, 3), the sender's translation in cell vectors; with complete edges also
    pair_index (2, P) and pair_sums (P, K). ``batch.to_data_list()`` gives the structures one by one.

    Raises:
        ImportError: torch-geometric is not installed.
    """
    geometric = _torch_geometric()
    atoms, edges, pairs = (
        (graph, None, None) if isinstance(graph, AtomsBatch) else (graph.atoms, graph.edges, graph.pairs)
    )
    owner, n = atoms.batch, atoms.n_structures
    first = torch.cumsum(atoms.n_atoms, 0) - atoms.n_atoms
    columns = {
        "z": _split(atoms.numbers, owner, n),
        "pos": _split(atoms.positions, owner, n),
        "cell": atoms.cell.split(1),
        "pbc": atoms.pbc.split(1),
    }
    if edges is not None:
        of_edge = owner[edges.receiver]
        order = torch.argsort(of_edge, stable=True)
        index = torch.stack((edges.sender, edges.receiver))[:, order] - first[of_edge[order]]
        columns["edge_index"] = [part.T for part in _split(index.T, of_edge[order], n)]
        columns["edge_shift"] = _split(edges.image[order], of_edge[order], n)
    if pairs is not None:
        of_pair = owner[pairs.receiver]
        index = torch.stack((pairs.sender, pairs.receiver)) - first[of_pair]
        columns["pair_index"] = [part.T for part in _split(index.T, of_pair, n)]
        columns["pair_sums"] = _split(pairs.sums, of_pair, n)
    rows = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
    return geometric.Batch.from_data_list([geometric.Data(num_nodes=len(row["z"]), **row) for row in rows])


def from_pyg(data: Any) -> AtomsBatch:
    """Structures of a ``Data`` or ``Batch`` with z (or atomic_numbers), pos, and cell and pbc unless it is a molecule.

    Without pbc, a structure with a cell is periodic in all directions, one without in none. Edges are not read.

    Raises:
        ImportError: torch-geometric is not installed.
        ValueError: naming data and the attribute that is missing or of the wrong shape, or a structure that cannot be.
    """
    _torch_geometric()
    numbers = _attribute(data, "z", "atomic_numbers")
    positions = _attribute(data, "pos", "positions")
    if numbers is None or positions is None:
        raise ValueError(f"data must have z and pos, got {_names(data)}")
    numbers, positions = _whole(numbers), _real(positions)
    batch = getattr(data, "batch", None)
    batch = numbers.new_zeros(len(numbers), dtype=torch.int64) if batch is None else batch
    n = int(getattr(data, "num_graphs", 1) or 1)
    cell, pbc = _attribute(data, "cell"), _attribute(data, "pbc")
    if pbc is None:
        pbc = torch.full((n, 3), cell is not None)
    if cell is None:
        cell = positions.new_zeros(n, 3, 3)
    cell, pbc = torch.as_tensor(cell), torch.as_tensor(pbc)
    if cell.numel() != 9 * n or pbc.numel() != 3 * n or positions.shape != (len(numbers), 3) or numbers.ndim != 1:
        raise ValueError(
            f"data must have z (N,), pos (N, 3), cell ({n}, 3, 3) and pbc ({n}, 3), got {tuple(numbers.shape)}, "
            f"{tuple(positions.shape)}, {tuple(cell.shape)} and {tuple(pbc.shape)}"
        )
    cell, pbc = cell.reshape(n, 3, 3).to(positions), pbc.reshape(n, 3).bool().cpu()
    if bool((torch.bincount(batch, minlength=n) == 0).any()) or bool((batch.diff() < 0).any()):
        raise ValueError("data must have the atoms of each structure one after another, and at least one of each")
    check_values(*(part.detach().cpu().numpy() for part in (numbers, positions, cell, pbc, batch)), name="data")
    return AtomsBatch(
        numbers=numbers.long(),
        positions=positions,
        cell=cell,
        pbc=pbc,
        batch=batch,
    )


def _whole(numbers: Any) -> torch.Tensor:
    """Atomic numbers as integers. Raises ValueError where they are not."""
    values = torch.as_tensor(numbers)
    if values.is_floating_point() and bool((values != values.round()).any()):
        raise ValueError(f"data must have integer atomic numbers in z, got {values.tolist()[:10]}")
    return values.long()


def _real(positions: Any) -> torch.Tensor:
    """Positions in float32 or float64; integers in torch's default type. Raises ValueError for another one."""
    values = torch.as_tensor(positions)
    if not values.is_floating_point() and not values.is_complex():
        return values.to(torch.get_default_dtype())
    if values.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"data must have pos in float32 or float64, got {values.dtype}")
    return values


def _attribute(data: Any, *names: str) -> Any:
    return next((value for name in names if (value := getattr(data, name, None)) is not None), None)


def _names(data: Any) -> str:
    keys = data.keys() if callable(getattr(data, "keys", None)) else type(data).__name__
    return ", ".join(keys) if not isinstance(keys, str) else keys


def _split(values: torch.Tensor, owner: torch.Tensor, n: int) -> tuple[torch.Tensor, ...]:
    """Rows of each structure, owners ascending."""
    return values.split(torch.bincount(owner, minlength=n).tolist())


def _torch_geometric() -> ModuleType:
    try:
        import torch_geometric.data
    except ImportError as error:
        raise ImportError(
            "torch-geometric is needed for this: pip install torch-geometric, or ase-potnet with the extra [train]"
        ) from error
    data: ModuleType = torch_geometric.data
    return data
