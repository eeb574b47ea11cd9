from __future__ import annotations

import sys

import pytest
import torch
from ase.build import bulk, molecule

from ase_potnet.graph import batch_structures, build_graph, from_pyg, nearest_edges, to_pyg
from ase_potnet.lattice import Coulomb, London

from .structures import random_crystal


@pytest.fixture
def geometric():
    return pytest.importorskip("torch_geometric.data", reason="needs torch-geometric, of the extra [train]")


@pytest.fixture
def graph():
    structures = [random_crystal(0, 3), bulk("Cu"), random_crystal(5, 4, (True, True, False)), molecule("CO")]
    return build_graph(structures, cutoff=3.5, potentials=[Coulomb(), London()])


def assert_same(one, other):
    for name in ("numbers", "positions", "cell", "pbc", "batch"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name))


def test_there_and_back(geometric, graph):
    batch = to_pyg(graph)
    assert isinstance(batch, geometric.Batch)
    assert_same(from_pyg(batch), graph.atoms)
    for index, data in enumerate(batch.to_data_list()):
        torch.testing.assert_close(from_pyg(data).positions, graph.atoms.positions[graph.atoms.batch == index])
    assert_same(from_pyg(to_pyg(graph.atoms)), graph.atoms)


def test_edges_come_along(geometric, graph):
    batch = to_pyg(graph)
    torch.testing.assert_close(batch.edge_index, torch.stack((graph.edges.sender, graph.edges.receiver)))
    torch.testing.assert_close(batch.edge_shift, graph.edges.image)
    torch.testing.assert_close(batch.pair_index, torch.stack((graph.pairs.sender, graph.pairs.receiver)))
    torch.testing.assert_close(batch.pair_sums, graph.pairs.sums)
    data = batch.to_data_list()[2]
    sender, receiver = data.edge_index
    vectors = data.pos[sender] + data.edge_shift @ data.cell[0] - data.pos[receiver]
    assert len(vectors) > 0
    assert torch.linalg.vector_norm(vectors, dim=1).max() < 3.5


def test_plain_data_of_other_programs(geometric):
    crystal = bulk("NaCl", "rocksalt", a=5.64)
    data = geometric.Data(
        atomic_numbers=torch.from_numpy(crystal.numbers),
        pos=torch.from_numpy(crystal.positions).float(),
        cell=torch.from_numpy(crystal.cell.array),
    )
    atoms = from_pyg(data)
    assert atoms.pbc.all()
    assert atoms.dtype == atoms.cell.dtype == torch.float32
    assert len(nearest_edges(atoms, 6)) == 12
    pair = from_pyg(geometric.Batch.from_data_list([data, data]))
    assert_same(pair, batch_structures([crystal, crystal], dtype=torch.float32))
    alone = from_pyg(geometric.Data(z=torch.tensor([6, 8]), pos=torch.eye(3)[:2]))
    assert not alone.pbc.any()


def test_bad_data(geometric):
    with pytest.raises(ValueError, match="data must have z and pos, got pos"):
        from_pyg(geometric.Data(pos=torch.zeros(2, 3)))
    with pytest.raises(ValueError, match=r"data must have z \(N,\)"):
        from_pyg(geometric.Data(z=torch.tensor([6, 8]), pos=torch.eye(3)[:2], cell=torch.eye(2)))
    with pytest.raises(ValueError, match="finite positions"):
        from_pyg(geometric.Data(z=torch.tensor([6]), pos=torch.full((1, 3), torch.nan)))


def test_nothing_is_cut_off(geometric):
    whole = from_pyg(geometric.Data(z=torch.tensor([6.0, 8.0]), pos=torch.eye(3).long()[:2], cell=5.5 * torch.eye(3)))
    assert whole.numbers.tolist() == [6, 8]
    assert whole.positions.dtype == torch.get_default_dtype()
    assert whole.cell[0, 0, 0] == 5.5
    flags = from_pyg(
        geometric.Data(z=torch.tensor([6]), pos=torch.zeros(1, 3), cell=torch.eye(3), pbc=[True, False, True])
    )
    assert flags.pbc.tolist() == [[True, False, True]]
    with pytest.raises(ValueError, match="data must have integer atomic numbers"):
        from_pyg(geometric.Data(z=torch.tensor([1.5, 2.0]), pos=torch.eye(3)[:2]))
    with pytest.raises(ValueError, match="data must have pos in float32 or float64"):
        from_pyg(geometric.Data(z=torch.tensor([6]), pos=torch.zeros(1, 3, dtype=torch.bfloat16)))


def test_without_torch_geometric(monkeypatch, graph):
    monkeypatch.setitem(sys.modules, "torch_geometric", None)
    monkeypatch.setitem(sys.modules, "torch_geometric.data", None)
    with pytest.raises(ImportError, match="torch-geometric"):
        to_pyg(graph)
    with pytest.raises(ImportError, match=r"extra \[train\]"):
        from_pyg(None)
