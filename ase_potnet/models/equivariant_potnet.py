"""EquivariantPotNet: energy of a local equivariant channel and the complete potentials of latent sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from ase.data import chemical_symbols
from torch import Tensor, nn

from ase_potnet.graph import AtomsBatch, Edges, local_edges
from ase_potnet.models.angular import SphereGrid
from ase_potnet.models.local_environment import Environment, environment
from ase_potnet.models.radial import RadialBasis
from ase_potnet.models.repulsion import ScreenedNuclearRepulsion
from ase_potnet.models.site_potentials import N_POTENTIALS, CompletePotentials, SitePotentials, Sources

N_ELEMENTS = 95  # atomic numbers 1 to 94; index 0 is not used


@dataclass(frozen=True)
class EquivariantPotNetConfig:
    """Hyperparameters.

    cutoff: of the local channel, Å
    n_radial: radial functions for each degree 0 ... l_max of the spherical harmonics of an edge, not increasing
    width: channels of atoms
    message_width: channels of a neighbour in a message, of degree 0, 1 and 2
    n_layers: message passing layers
    n_sources: latent sources of each potential; 0 for a purely local model
    neutral: how Coulomb sources are made neutral, "flow" or "mean" (see ``Sources``)
    fields: whether the gradients of the potentials are features, too
    alpha: inverse length of the Pauli potential, 1/Å
    tolerance: absolute error of the lattice sums; None: 1e-5 in float32, 1e-11 in float64
    """

    cutoff: float = 5.0
    n_radial: tuple[int, ...] = (8, 6, 4, 3)
    width: int = 64
    message_width: tuple[int, int, int] = (24, 8, 4)
    n_layers: int = 2
    n_sources: int = 4
    neutral: str = "flow"
    fields: bool = False
    alpha: float = 3.0
    tolerance: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "n_radial", tuple(self.n_radial))
        object.__setattr__(self, "message_width", tuple(self.message_width))
        for name in ("cutoff", "width", "n_layers", "alpha"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.neutral not in ("flow", "mean"):
            raise ValueError(f"neutral must be 'flow' or 'mean', got {self.neutral!r}")
        if (
            len(self.n_radial) < 3
            or min(self.n_radial) < 1
            or sorted(self.n_radial, reverse=True) != list(self.n_radial)
        ):
            raise ValueError(
                f"n_radial must hold three or more positive numbers that do not increase, got {self.n_radial}"
            )
        if len(self.message_width) != 3 or min(self.message_width) < 1:
            raise ValueError(f"message_width must hold three positive numbers, got {self.message_width}")

    @property
    def l_max(self) -> int:
        """Highest degree of the spherical harmonics."""
        return len(self.n_radial) - 1


class EquivariantPotNet(nn.Module):
    """Interatomic potential for the elements 1 to 94: per-atom energies, in eV.

    Each layer sums over neighbours (Environment), multiplies the sums at the atom (Gaunt products on a grid of the
    sphere) and updates the atom's features of degree 0, 1 and 2. After the first layer, latent sources of the atoms
    give complete potentials, which enter the next layer and, as sources times potentials, the energy.
    """

    Config = EquivariantPotNetConfig
    references: Tensor
    energy_scale: Tensor
    elements: Tensor

    def __init__(self, config: EquivariantPotNetConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.embedding = nn.Embedding(N_ELEMENTS, width)
        self.radial = RadialBasis(config.cutoff, config.n_radial[0])
        self.layers = nn.ModuleList(
            Layer(config, first=t == 0, last=t == config.n_layers - 1, complete=t >= 1 and config.n_sources > 0)
            for t in range(config.n_layers)
        )
        self.readouts = nn.ModuleList(Readout(width) for _ in range(config.n_layers))
        self.repulsion = ScreenedNuclearRepulsion(config.cutoff)
        if config.n_sources:
            self.sources = Sources(width, config.n_radial[0], config.n_sources, config.neutral)
            self.site_potentials = SitePotentials(config.n_sources, config.alpha, config.tolerance, config.fields)
        self.register_buffer("references", torch.zeros(N_ELEMENTS, dtype=torch.float64))
        self.register_buffer("energy_scale", torch.ones((), dtype=torch.float64))
        self.register_buffer("elements", torch.arange(N_ELEMENTS) > 0)

    def forward(self, atoms: AtomsBatch, edges: Edges | None = None) -> Tensor:
        """Energy of every atom, eV. (T,)

        edges: all local edges up to the cut-off, if they are known. Raises ValueError for elements that
        the training set did not hold.
        """
        _, energies = self.features(atoms, edges)
        total: Tensor = energies + self.references.to(energies)[atoms.numbers]
        return total

    def features(self, atoms: AtomsBatch, edges: Edges | None = None) -> tuple[Tensor, Tensor]:
        """Invariant features (T, C) of the last layer, and energies without the references of the elements (T,), eV."""
        self._require_elements(atoms.numbers)
        edges = local_edges(atoms, self.config.cutoff) if edges is None else edges
        env = environment(atoms, edges, self.radial, self.config.n_radial)
        scalars = self.embedding(atoms.numbers)  # (T, C)
        higher: list[Tensor] = []  # degrees 1 and 2, (T, 2l+1, C)
        energies = scalars.new_zeros(len(scalars))
        complete = None
        for t, (layer, readout) in enumerate(zip(self.layers, self.readouts, strict=True)):
            scalars, higher = layer(scalars, higher, env, complete)
            energies = energies + readout(scalars) * env.bonded
            if t == 0 and self.config.n_sources:
                complete = self.site_potentials(self.sources(scalars, env, atoms), atoms)
                energies = energies + complete.energies
        return scalars, energies * self.energy_scale.to(energies) + self.repulsion(atoms.numbers, env)

    def set_tolerance(self, tolerance: float) -> None:
        """Absolute error of the lattice sums from now on."""
        if self.config.n_sources:
            self.site_potentials.tolerance = tolerance

    def set_references(self, references: Tensor, energy_scale: float, elements: Tensor | None = None) -> None:
        """What a training set says of energies.

        references: (95,) energies of isolated atoms by atomic number, eV
        energy_scale: of the network's energies, eV
        elements: (95,) bool, those that the training set holds; None for all
        """
        self.references.copy_(references)
        self.energy_scale.fill_(energy_scale)
        if elements is not None:
            self.elements.copy_(elements)

    def _require_elements(self, numbers: Tensor) -> None:
        known = self.elements[numbers.clamp(max=N_ELEMENTS - 1)] & (numbers < N_ELEMENTS)
        if not bool(known.all()):
            unknown = sorted({chemical_symbols[z] for z in numbers[~known].tolist()})
            raise ValueError(f"atoms must hold elements of the training set; it had no {', '.join(unknown)}")


class Layer(nn.Module):
    """One message passing step."""

    def __init__(self, config: EquivariantPotNetConfig, *, first: bool, last: bool, complete: bool) -> None:
        super().__init__()
        width = config.width
        s, v, t = config.message_width
        self.widths = (s,) if first else (s, v, t)
        n_message = sum(self.widths)
        self.senders = nn.ModuleList(nn.Linear(width, w, bias=False) for w in self.widths)
        # two mixtures of the sums of each degree: (n_radial · n_message, 2 C)
        self.mixing = nn.ParameterList(nn.Parameter(torch.randn(n * n_message, 2 * width)) for n in config.n_radial)
        self.gain = nn.Linear(width, 2 * width)
        self.grid = SphereGrid(config.l_max, 3, 0 if last else 2)
        n_invariants = 5 * width + (N_POTENTIALS * config.n_sources if complete else 0)
        if complete and config.fields:
            self.fields = nn.Linear(N_POTENTIALS * config.n_sources, 2 * width, bias=False)
        self.update = nn.Sequential(
            nn.Linear(n_invariants, 2 * width), nn.SiLU(), nn.Linear(2 * width, 2 * width), nn.SiLU()
        )
        self.residual = nn.Linear(2 * width, width)
        self.outputs = nn.ModuleList(nn.Linear(3 * width, width, bias=False) for _ in range(0 if last else 2))
        if not last:
            self.gates = nn.Linear(2 * width, 2 * width)
        with torch.no_grad():
            for weight in self.mixing:
                weight *= weight.shape[0] ** -0.5

    def forward(
        self, scalars: Tensor, higher: Sequence[Tensor], env: Environment, complete: CompletePotentials | None
    ) -> tuple[Tensor, list[Tensor]]:
        width = scalars.shape[1]
        features = [scalars, *higher]
        sent = [linear(part) for linear, part in zip(self.senders, features, strict=False)]
        messages = torch.cat([env.along_edges(part, l) for l, part in enumerate(sent)], dim=2)  # (T, K, M)
        sums = env.sum_over_neighbours(messages)
        mixed = torch.cat([part @ weight for part, weight in zip(sums, self.mixing, strict=True)], dim=1)
        if complete is not None and complete.fields is not None:
            vectors = self.fields(complete.fields)  # (T, 3, 2 C)
            mixed = torch.cat((mixed[:, :1], mixed[:, 1:4] + vectors, mixed[:, 4:]), dim=1)
        mixed = saturate(mixed) * (1 + self.gain(scalars))[:, None]
        left, right = mixed[..., :width], mixed[..., width:]
        products = self.grid.products(left, right)  # (T, 1 or 9, 2 C)
        invariants = torch.cat((scalars, mixed[:, 0], products[:, 0]), dim=1)
        if complete is not None:
            invariants = torch.cat((invariants, complete.potentials), dim=1)
        hidden = self.update(invariants)
        result = []
        gates = torch.sigmoid(self.gates(hidden)).split(width, 1) if self.outputs else ()
        for l, linear in enumerate(self.outputs, start=1):
            some = slice(l * l, (l + 1) ** 2)
            new = linear(torch.cat((left[:, some], products[:, some]), dim=2)) * gates[l - 1][:, None]
            result.append(new + higher[l - 1] if higher else new)
        return scalars + self.residual(hidden), result


def saturate(sums: Tensor) -> Tensor:
    """Sums over neighbours divided by a smooth norm of the atom's sums, at most of order one. (T, n_lm, C) -> same"""
    mean_square = (sums * sums).mean((1, 2), keepdim=True)
    return sums * torch.rsqrt(1 + mean_square)


class Readout(nn.Module):
    """Energy of an atom in units of the energy scale, from its invariant features."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, width // 2), nn.SiLU(), nn.Linear(width // 2, 1, bias=False))

    def forward(self, scalars: Tensor) -> Tensor:
        """(T, C) -> (T,)"""
        energies: Tensor = self.layers(scalars)[:, 0]
        return energies
