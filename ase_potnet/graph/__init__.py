"""Structures to batched tensors on the device: neighbours within a cut-off, nearest neighbours, complete edges."""

from ase_potnet.graph.atoms_batch import AtomsBatch, Structure, batch_for_prediction, batch_structures
from ase_potnet.graph.complete import CompleteEdges, complete_edges
from ase_potnet.graph.cutoffs import PairCutoffs
from ase_potnet.graph.graph import Graph, build_graph
from ase_potnet.graph.nearest import nearest_edges
from ase_potnet.graph.neighbour_list import NeighbourList
from ase_potnet.graph.neighbours import Edges, local_edges
from ase_potnet.graph.pyg import from_pyg, to_pyg

__all__ = [
    "AtomsBatch",
    "CompleteEdges",
    "Edges",
    "Graph",
    "NeighbourList",
    "PairCutoffs",
    "Structure",
    "batch_for_prediction",
    "batch_structures",
    "build_graph",
    "complete_edges",
    "from_pyg",
    "local_edges",
    "nearest_edges",
    "to_pyg",
]
