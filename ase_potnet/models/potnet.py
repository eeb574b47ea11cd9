"""PotNet as published: Lin et al., ICML 2023, arXiv:2306.10045.

Written from the paper. Two kinds of edges pass messages side by side: local ones to the 16 nearest neighbours, which
carry their distance, and complete ones between all atoms of the cell, which carry the infinite sums of the Coulomb,
London and Pauli potentials. The published scaling of the Pauli exponent with the size of the cell is left out: α is an
inverse length here (1/Å). The prediction depends on the cell that describes the crystal, as it does in the paper;
``InvariantPotNet`` does not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ase_potnet.graph import AtomsBatch, complete_edges, nearest_edges
from ase_potnet.models.element_features import N_FEATURES, element_features
from ase_potnet.models.layers import (
    GaussianBasis,
    MultiquadricBasis,
    mean_over_atoms,
    mlp,
    read_potentials,
    sum_over_neighbours,
)
from ase_potnet.models.scaling import TargetScaling, composition

_DISTANCE_SCALE = -0.75  # Å, local edges carry -0.75/d


@dataclass(frozen=True)
class PotNetConfig:
    """Hyperparameters; the defaults are the paper's.

    n_targets: numbers predicted for every structure
    width: features of an atom
    n_layers: convolutions
    n_nearest: neighbours of the local edges
    ties: of equally far neighbours, "cut" or "shell", see ``graph.nearest_edges``
    n_local_basis, n_complete_basis: radial functions of local and complete edges
    potentials, coefficients: complete edges carry Σ coefficient · pair sum of potential
    infinite_channel: "gated", the convolution of the local edges; or "transformer", attention over all atoms
    n_heads: of the transformer channel
    euclidean: local edges only, the paper's ablation
    tolerance: absolute error of the sums; None: 1e-5 in float32, 1e-11 in float64
    """

    n_targets: int = 1
    width: int = 256
    n_layers: int = 3
    n_nearest: int = 16
    ties: str = "cut"
    n_local_basis: int = 256
    n_complete_basis: int = 64
    potentials: tuple[str, ...] = ("coulomb", "london", "pauli(3.0)")
    coefficients: tuple[float, ...] = (-0.801, -0.074, 0.145)
    infinite_channel: str = "gated"
    n_heads: int = 4
    euclidean: bool = False
    tolerance: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "potentials", tuple(self.potentials))
        object.__setattr__(self, "coefficients", tuple(float(value) for value in self.coefficients))
        for name in ("n_targets", "width", "n_layers", "n_nearest", "n_heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if len(self.potentials) != len(self.coefficients) or not self.potentials:
            raise ValueError(
                f"coefficients must be as many as potentials, got {len(self.coefficients)} and {len(self.potentials)}"
            )
        if self.infinite_channel not in ("gated", "transformer"):
            raise ValueError(f"infinite_channel must be 'gated' or 'transformer', got {self.infinite_channel!r}")
        if self.width % self.n_heads:
            raise ValueError(f"n_heads must divide width {self.width}, got {self.n_heads}")
        read_potentials(self.potentials)


@dataclass(frozen=True)
class EdgeFeatures:
    """Edges j -> i with their features: receiver (E,), sender (E,), features (E, width)."""

    receiver: Tensor
    sender: Tensor
    features: Tensor


class PotNet(nn.Module):
    """Properties of crystals from local distances and complete potentials.

    ``forward(atoms)`` returns (B, n_targets) in the units of the targets that ``scaling`` was fitted to. Elements are
    what their tabulated properties say, also those that the training set did not hold.
    """

    Config = PotNetConfig

    def __init__(self, config: PotNetConfig) -> None:
        super().__init__()
        self.config = config
        self.potentials = read_potentials(config.potentials)
        width = config.width
        self.element_embedding = nn.Linear(N_FEATURES, width)
        self.register_buffer("element_table", element_features().clone(), persistent=False)
        self.register_buffer("coefficients", torch.tensor(config.coefficients), persistent=False)
        self.local_embedding = nn.Sequential(
            GaussianBasis(-4.0, 0.0, config.n_local_basis), nn.Linear(config.n_local_basis, width), nn.SiLU()
        )
        if not config.euclidean:
            self.complete_embedding = nn.Sequential(
                MultiquadricBasis(-4.0, 4.0, config.n_complete_basis),
                nn.Linear(config.n_complete_basis, width),
                nn.SiLU(),
            )
        attention = config.infinite_channel == "transformer" and not config.euclidean
        self.layers = nn.ModuleList(
            PotNetLayer(width, config.n_heads if attention else None) for _ in range(config.n_layers)
        )
        self.head = mlp(width, width, config.n_targets)
        self.scaling = TargetScaling(config.n_targets)

    def forward(self, atoms: AtomsBatch) -> Tensor:
        """Predictions in physical units. (B, n_targets)"""
        table: Tensor = self.get_buffer("element_table")
        x = self.element_embedding(table.to(atoms.dtype)[atoms.numbers])  # (T, width)
        local = self._local_edges(atoms)
        complete = None if self.config.euclidean else self._complete_edges(atoms)
        for layer in self.layers:
            x = layer(x, local, complete)
        pooled = mean_over_atoms(x, atoms.batch, atoms.n_structures)
        return self.scaling.restore(self.head(pooled).to(atoms.dtype), composition(atoms))

    def _local_edges(self, atoms: AtomsBatch) -> EdgeFeatures:
        with torch.autocast(atoms.device.type, enabled=False):  # mixed precision is for the network alone
            with torch.no_grad():
                edges = nearest_edges(atoms, self.config.n_nearest, ties=self.config.ties)
            distance = torch.linalg.vector_norm(edges.vectors(atoms), dim=1)
        return EdgeFeatures(edges.receiver, edges.sender, self.local_embedding(_DISTANCE_SCALE / distance))

    def _complete_edges(self, atoms: AtomsBatch) -> EdgeFeatures:
        with torch.autocast(atoms.device.type, enabled=False):
            pairs = complete_edges(atoms, self.potentials, self.config.tolerance)
            potential = pairs.sums @ self.get_buffer("coefficients").to(atoms.dtype)
        return EdgeFeatures(pairs.receiver, pairs.sender, self.complete_embedding(potential))


class PotNetLayer(nn.Module):
    """One step of message passing over local and complete edges, with a residual connection.

    n_heads: of the attention over complete edges; None to let them pass gated messages beside the local ones.
    """

    def __init__(self, width: int, n_heads: int | None) -> None:
        super().__init__()
        self.convolution = GatedConvolution(width)
        self.norm = AtomNorm(width)
        self.attention = None if n_heads is None else CompleteAttention(width, n_heads)

    def forward(self, x: Tensor, local: EdgeFeatures, complete: EdgeFeatures | None) -> Tensor:
        update = self.convolution(x, local)
        if complete is not None:
            channel = self.convolution if self.attention is None else self.attention
            update = update + channel(x, complete)
        return functional.silu(x + self.norm(update))


class GatedConvolution(nn.Module):
    """Σ_j σ(gate(x_i, x_j, e_ij)) · message(x_i, x_j, e_ij), gate and message networks of two layers each.

    The first Linear of both networks acts on the concatenation of x_i, x_j and e_ij; it is three Linears, two of which
    run once an atom rather than once an edge.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.receiver = nn.Linear(width, 2 * width, bias=False)
        self.sender = nn.Linear(width, 2 * width, bias=False)
        self.edge = nn.Linear(width, 2 * width)
        self.gate = nn.Linear(width, width)
        self.message = nn.Linear(width, width)
        for part in (self.receiver, self.sender, self.edge):  # as one Linear of 3 width inputs
            nn.init.uniform_(part.weight, -1 / math.sqrt(3 * width), 1 / math.sqrt(3 * width))

    def forward(self, x: Tensor, edges: EdgeFeatures) -> Tensor:
        hidden = self.receiver(x)[edges.receiver] + self.sender(x)[edges.sender] + self.edge(edges.features)
        gate, message = functional.silu(hidden).chunk(2, dim=1)  # (E, width) each
        messages = torch.sigmoid(self.gate(gate)) * self.message(message)
        return sum_over_neighbours(messages, edges.receiver, len(x))


class CompleteAttention(nn.Module):
    """Multi-head attention of every atom to all atoms of its structure, keys and values shifted by the edge."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.edge = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, edges: EdgeFeatures) -> Tensor:
        heads = (len(edges.receiver), self.n_heads, -1)
        edge_key, edge_value = self.edge(edges.features).chunk(2, dim=1)
        query = self.query(x)[edges.receiver].view(heads)
        key = (self.key(x)[edges.sender] + edge_key).view(heads)
        value = (self.value(x)[edges.sender] + edge_value).view(heads)
        scores = (query * key).sum(2) / math.sqrt(key.shape[2])  # (E, heads)
        index = edges.receiver[:, None].expand_as(scores)
        largest = scores.detach().new_full((len(x), self.n_heads), -torch.inf)
        largest = largest.scatter_reduce(0, index, scores.detach(), "amax")
        weights = torch.exp(scores - largest[edges.receiver])
        total = sum_over_neighbours(weights, edges.receiver, len(x))
        messages = (weights / total[edges.receiver])[:, :, None] * value
        return self.out(sum_over_neighbours(messages.flatten(1), edges.receiver, len(x)))


class AtomNorm(nn.BatchNorm1d):
    """Batch norm over atoms that takes its running statistics where a training batch has a single atom."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        if self.training and len(input) == 1:
            return functional.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
            )
        return super().forward(input)
