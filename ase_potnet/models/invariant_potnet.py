"""InvariantPotNet: PotNet's idea in a form that does not depend on the cell that describes the crystal.

A nonlinear function of a pair sum is not the sum of the function over the images that a larger cell splits the pair
into, so here messages are linear in the sums: latent sources of the atoms give complete potentials at every atom, and
nonlinearity acts on atoms afterwards. Local edges end in a smooth cut-off and have no cap. The same crystal in its
primitive cell, in another basis or as a supercell gets the same prediction, to rounding and to the tolerance of the
sums.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ase_potnet.graph import AtomsBatch, local_edges
from ase_potnet.models.angular import EdgeHarmonics
from ase_potnet.models.complete_channel import CompleteChannel
from ase_potnet.models.element_features import N_FEATURES, element_features
from ase_potnet.models.gated_messages import GatedMessages
from ase_potnet.models.known_elements import KnowsElements
from ase_potnet.models.layers import (
    GaussianBasis,
    envelope,
    mean_over_atoms,
    mlp,
    read_potentials,
)
from ase_potnet.models.neighbour_channel import NeighbourChannel, NeighbourPairs, neighbour_pairs
from ase_potnet.models.scaling import N_ELEMENTS, TargetScaling, composition


@dataclass(frozen=True)
class InvariantPotNetConfig:
    """Hyperparameters.

    n_targets: numbers predicted for every structure
    width: features of an atom
    n_layers: message passing layers
    cutoff: of the local edges, Å
    message_width: features of a gated message
    n_radial: radial functions of the gated messages
    l_max: highest degree of the spherical harmonics of the angular channel; -1 for no such channel
    n_angular_radial, n_angular_sources, angular_width: its radial functions, sources and invariants of each degree
    potentials: of the complete channel, as text, see ``layers.read_potentials``
    scales: factors that bring the potentials to order one
    n_sources: latent sources of the complete channel
    euclidean: no complete channel, the ablation
    tolerance: absolute error of the sums; None: 1e-5 in float32, 1e-11 in float64
    """

    n_targets: int = 1
    width: int = 128
    n_layers: int = 3
    cutoff: float = 5.0
    message_width: int = 128
    n_radial: int = 24
    l_max: int = 3
    n_angular_radial: int = 8
    n_angular_sources: int = 16
    angular_width: int = 32
    potentials: tuple[str, ...] = ("coulomb", "london", "pauli(3.0)")
    scales: tuple[float, ...] = (1.0, 10.0, 30.0)
    n_sources: int = 16
    euclidean: bool = False
    tolerance: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "potentials", tuple(self.potentials))
        object.__setattr__(self, "scales", tuple(float(value) for value in self.scales))
        for name in ("n_targets", "width", "n_layers", "cutoff", "message_width", "n_angular_radial", "n_sources"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if len(self.potentials) != len(self.scales) or not self.potentials:
            raise ValueError(f"scales must be as many as potentials, got {len(self.scales)} and {len(self.potentials)}")
        read_potentials(self.potentials)


@dataclass(frozen=True)
class Surroundings:
    """What does not change between layers.

    pairs: pairs of neighbours with their radial functions
    angular: sums of radial functions times spherical harmonics, or None
    complete: sums over all atoms and images, or None
    """

    pairs: NeighbourPairs
    angular: NeighbourChannel | None
    complete: CompleteChannel | None


class InvariantPotNet(KnowsElements):
    """Properties of crystals, whatever cell describes them.

    ``forward(atoms)`` returns (B, n_targets) in the units of the targets that ``scaling`` was fitted to.
    """

    Config = InvariantPotNetConfig

    def __init__(self, config: InvariantPotNetConfig) -> None:
        super().__init__(N_ELEMENTS)
        self.config = config
        self.potentials = read_potentials(config.potentials)
        width = config.width
        self.register_buffer("element_table", element_features().clone(), persistent=False)
        self.property_embedding = nn.Linear(N_FEATURES, width)
        self.element_embedding = nn.Embedding(N_ELEMENTS, width)
        nn.init.normal_(self.element_embedding.weight, std=0.3)
        self.radial_basis = GaussianBasis(0.5, config.cutoff, config.n_radial)
        self.angular_basis = GaussianBasis(1.0, config.cutoff, config.n_angular_radial)
        self.harmonics = EdgeHarmonics(max(config.l_max, 0))
        self.layers = nn.ModuleList(InvariantPotNetLayer(config) for _ in range(config.n_layers))
        self.norm = nn.LayerNorm(width)
        self.atom_head = mlp(width, width, config.n_targets)
        self.head = mlp(width, width, config.n_targets)
        self.scaling = TargetScaling(config.n_targets)

    def forward(self, atoms: AtomsBatch) -> Tensor:
        """Predictions in physical units. (B, n_targets)"""
        self.require_elements(atoms.numbers)
        with torch.autocast(atoms.device.type, enabled=False):  # mixed precision is for the network alone
            surroundings = self._surroundings(atoms)
        table: Tensor = self.get_buffer("element_table")
        x = self.property_embedding(table.to(atoms.dtype)[atoms.numbers]) + self.element_embedding(atoms.numbers)
        for layer in self.layers:
            x = layer(x, surroundings)
        x = self.norm(x)  # (T, width)
        pooled = mean_over_atoms(torch.cat((x, self.atom_head(x)), dim=1), atoms.batch, atoms.n_structures)
        features, outputs = pooled.split((self.config.width, self.config.n_targets), dim=1)
        return self.scaling.restore((outputs + self.head(features)).to(atoms.dtype), composition(atoms))

    def _surroundings(self, atoms: AtomsBatch) -> Surroundings:
        config = self.config
        with torch.no_grad():
            edges = local_edges(atoms, config.cutoff)
        vectors = edges.vectors(atoms)
        distance = torch.linalg.vector_norm(vectors, dim=1)  # (E,)
        smooth = envelope(distance, config.cutoff)[:, None]
        functions = [self.radial_basis(distance) * smooth]
        if config.l_max >= 0:
            harmonics = self.harmonics(vectors / distance[:, None])  # (E, n_lm)
            radial = self.angular_basis(distance) * smooth
            functions.append((harmonics[:, :, None] * radial[:, None]).flatten(1))
        pairs = neighbour_pairs(edges, torch.cat(functions, dim=1), len(atoms.numbers))
        radial_pairs, angular_pairs = pairs.split(config.n_radial)
        complete = None
        if not config.euclidean:
            complete = CompleteChannel(atoms, self.potentials, config.tolerance)
        return Surroundings(radial_pairs, NeighbourChannel(angular_pairs) if config.l_max >= 0 else None, complete)


class InvariantPotNetLayer(nn.Module):
    """Gated messages, angular invariants and complete potentials update every atom, with a residual connection."""

    def __init__(self, config: InvariantPotNetConfig) -> None:
        super().__init__()
        width = config.width
        self.norm = nn.LayerNorm(width)
        self.messages = GatedMessages(width, config.message_width, config.n_radial)
        self.angular = None if config.l_max < 0 else AngularInvariants(config)
        self.complete = None if config.euclidean else CompletePotentials(config)
        n_inputs = width + config.message_width
        n_inputs += sum(part.n_features for part in (self.angular, self.complete) if part is not None)
        self.update = mlp(n_inputs, 2 * width, width)

    def forward(self, x: Tensor, surroundings: Surroundings) -> Tensor:
        normed = self.norm(x)
        features = [normed, self.messages(normed, surroundings.pairs)]
        if self.angular is not None:
            assert surroundings.angular is not None
            features.append(self.angular(normed, surroundings.angular))
        if self.complete is not None:
            assert surroundings.complete is not None
            features.append(self.complete(normed, surroundings.complete))
        return x + self.update(torch.cat(features, dim=1))


class AngularInvariants(nn.Module):
    """Scalar products of pairs of sums Σ_j R_n(r_ij) Y_lm(r_ij) q_j, degree by degree; at degree 0 the sums, too."""

    def __init__(self, config: InvariantPotNetConfig) -> None:
        super().__init__()
        self.l_max, self.width = config.l_max, config.angular_width
        self.sources = nn.Linear(config.width, config.n_angular_sources, bias=False)
        n_sums = config.n_angular_radial * config.n_angular_sources
        self.mixing = nn.Parameter(torch.randn(config.l_max + 1, n_sums, 2 * self.width) / math.sqrt(n_sums))
        self.n_features = (config.l_max + 3) * self.width
        self.norm = nn.LayerNorm(self.n_features)

    def forward(self, x: Tensor, neighbours: NeighbourChannel) -> Tensor:
        n_lm = (self.l_max + 1) ** 2
        sums = neighbours.sums(self.sources(x)).view(len(x), n_lm, -1).transpose(0, 1)  # (n_lm, T, n_sums)
        mixed = [sums[l * l : (l + 1) ** 2] @ self.mixing[l] for l in range(self.l_max + 1)]  # (2l + 1, T, 2 width)
        products = [(part[..., : self.width] * part[..., self.width :]).sum(0) * len(part) ** -0.5 for part in mixed]
        return self.norm(torch.cat((products[0], mixed[0][0], *products[1:]), dim=1))


class CompletePotentials(nn.Module):
    """Potentials of latent sources over the whole crystal, and the energies source · potential."""

    def __init__(self, config: InvariantPotNetConfig) -> None:
        super().__init__()
        self.sources = nn.Linear(config.width, config.n_sources, bias=False)
        self.register_buffer("scales", torch.tensor(config.scales), persistent=False)
        self.n_features = 2 * len(config.scales) * config.n_sources

    def forward(self, x: Tensor, complete: CompleteChannel) -> Tensor:
        sources = self.sources(x)  # (T, C)
        potentials = torch.asinh(complete.potentials(sources) * self.get_buffer("scales").to(x))  # (T, C, K)
        return torch.cat((potentials.flatten(1), (sources[:, :, None] * potentials).flatten(1)), dim=1)
