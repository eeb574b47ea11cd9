"""EquivariantPotNet: energy of a local equivariant channel and the complete potentials of latent sources."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from ase_potnet.graph import AtomsBatch, Edges, PairCutoffs, local_edges
from ase_potnet.models.angular import SphereGrid
from ase_potnet.models.known_elements import KnowsElements
from ase_potnet.models.layers import is_recorded, mean_over_atoms
from ase_potnet.models.local_environment import Environment, LocalEnvironment, Neighbourhoods, Places, grouped_places
from ase_potnet.models.repulsion import ScreenedNuclearRepulsion
from ase_potnet.models.site_potentials import N_POTENTIALS, CompletePotentials, SitePotentials, Sources

CompleteChannel = Callable[[Tensor, AtomsBatch, Neighbourhoods | None], CompletePotentials]
N_ELEMENTS = 95  # atomic numbers 1 to 94; index 0 is not used


@dataclass(frozen=True)
class EquivariantPotNetConfig:
    """Hyperparameters.

    cutoff: of the local channel, Å
    cutoff_per_radius: that of two large atoms is the sum of their covalent radii times this, if that is more; 0 in
        older weights
    n_radial: radial functions for each degree 0 ... l_max of the spherical harmonics of an edge, not increasing
    width: channels of atoms
    message_width: channels of a neighbour in a message, of degree 0, 1 and 2
    n_layers: message passing layers
    n_sources: latent sources of each potential; 0 for a purely local model
    neutral: how Coulomb sources are made neutral, "flow" or "mean" (see ``Sources``)
    fields: whether the gradients of the potentials are features, too
    alpha: inverse length of the Pauli potential, 1/Å
    tolerance: absolute error of the lattice sums; None: 1e-5 in float32, 1e-11 in float64
    absolute: the form of older weights, whose network sees the Coulomb potential and not its differences between
        neighbours; always so with neutral="mean", whose distant ions have no neighbours
    unbounded: the form of still older weights, absolute, too, which metals under pressure can make collapse (see
        ``SitePotentials``)
    """

    cutoff: float = 5.0
    cutoff_per_radius: float = 1.7
    n_radial: tuple[int, ...] = (8, 6, 4, 3)
    width: int = 64
    message_width: tuple[int, int, int] = (24, 8, 4)
    n_layers: int = 2
    n_sources: int = 4
    neutral: str = "flow"
    fields: bool = False
    alpha: float = 3.0
    tolerance: float | None = None
    absolute: bool = False
    unbounded: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "n_radial", tuple(self.n_radial))
        object.__setattr__(self, "message_width", tuple(self.message_width))
        for name in ("cutoff", "width", "n_layers", "alpha"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if not self.cutoff_per_radius >= 0:
            raise ValueError(f"cutoff_per_radius must not be negative, got {self.cutoff_per_radius}")
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


class EquivariantPotNet(KnowsElements):
    """Interatomic potential for the elements 1 to 94: per-atom energies, in eV.

    Each layer sums over neighbours (Environment), multiplies the sums at the atom (Gaunt products on a grid of the
    sphere) and updates the atom's features of degree 0, 1 and 2. After the first layer, latent sources of the atoms
    give complete potentials, which enter the next layer and, as sources times potentials, the energy.
    """

    Config = EquivariantPotNetConfig
    references: Tensor
    condensation: Tensor
    energy_scale: Tensor

    def __init__(self, config: EquivariantPotNetConfig) -> None:
        super().__init__(N_ELEMENTS)
        self.config = config
        width = config.width
        self.embedding = nn.Embedding(N_ELEMENTS, width)
        self.environment = LocalEnvironment(config.cutoff, config.cutoff_per_radius, config.n_radial)
        self.layers = nn.ModuleList(
            Layer(config, first=t == 0, last=t == config.n_layers - 1, complete=t >= 1 and config.n_sources > 0)
            for t in range(config.n_layers)
        )
        self.readouts = nn.ModuleList(Readout(width) for _ in range(config.n_layers))
        self.repulsion = ScreenedNuclearRepulsion(config.cutoff)
        if config.n_sources:
            self.sources = Sources(width, config.n_radial[0], config.n_sources, config.neutral, config.unbounded)
            self.site_potentials = SitePotentials(
                config.n_sources, config.alpha, config.tolerance, config.fields, config.unbounded
            )
        self.register_buffer("references", torch.zeros(N_ELEMENTS, dtype=torch.float64))
        self.register_buffer("condensation", torch.zeros(N_ELEMENTS, dtype=torch.float64))
        self.register_buffer("energy_scale", torch.ones((), dtype=torch.float64))

    def forward(self, atoms: AtomsBatch, edges: Edges | Places | None = None) -> Tensor:
        """Energy of every atom, eV. (T,) float64, as references of all-electron codes want it.

        edges: all local edges up to the cut-offs, if they are known; longer ones make no difference. Raises ValueError
        for elements that the training set did not hold.
        """
        return self.energies_at(atoms, self.places(atoms, edges))

    @property
    def cutoffs(self) -> PairCutoffs:
        """Of the local channel."""
        return self.environment.cutoffs

    def places(self, atoms: AtomsBatch, edges: Edges | Places | None = None) -> list[Places]:
        """Where the neighbours are. Raises ValueError for elements that the training set did not hold."""
        self.require_elements(atoms.numbers)
        if isinstance(edges, Places):
            return [edges]
        return grouped_places(local_edges(atoms, self.cutoffs) if edges is None else edges, atoms, self.cutoffs)

    def energies_at(
        self, atoms: AtomsBatch, places: Sequence[Places], site_potentials: CompleteChannel | None = None
    ) -> Tensor:
        """Energy of every atom with known neighbours of known elements, eV. (T,) float64

        site_potentials: instead of the model's own
        """
        _, energies, around = self.features(atoms, places, site_potentials)
        free, condensation = self.references[atoms.numbers], self.condensation[atoms.numbers]
        return energies.double() + around.condensed * condensation + free

    def features(
        self, atoms: AtomsBatch, places: Sequence[Places], site_potentials: CompleteChannel | None = None
    ) -> tuple[Tensor, Tensor, Neighbourhoods]:
        """Invariant features (T, C) of the last layer, energies without those of the elements (T,) eV, neighbours."""
        with torch.autocast(atoms.device.type, enabled=False):  # derivatives of an energy want its digits
            return self._features(atoms, places, site_potentials)

    def _features(
        self, atoms: AtomsBatch, places: Sequence[Places], site_potentials: CompleteChannel | None
    ) -> tuple[Tensor, Tensor, Neighbourhoods]:
        neighbourhoods = Neighbourhoods([self.environment(group, atoms) for group in places])
        scalars, higher = self.layers[0](self.embedding(atoms.numbers), [], neighbourhoods, None)
        energies, complete = self.readouts[0](scalars) * neighbourhoods.bonded, None
        if self.config.n_sources:
            sources = self.neutral(self.sources(scalars, neighbourhoods), atoms)
            relative = self.config.neutral == "flow" and not self.config.absolute
            complete = (site_potentials or self.site_potentials)(sources, atoms, neighbourhoods if relative else None)
            energies = energies + complete.energies
        for layer, readout in zip(self.layers[1:], self.readouts[1:], strict=True):
            scalars, higher = layer(scalars, higher, neighbourhoods, complete)
            energies = energies + readout(scalars) * neighbourhoods.bonded
        energies = energies * self.energy_scale.to(energies) + self.repulsion(atoms.numbers, neighbourhoods)
        return scalars, energies, neighbourhoods

    def neutral(self, sources: Tensor, atoms: AtomsBatch) -> Tensor:
        """Sources whose Coulomb column sums to zero over every structure. (T, Q, 3)"""
        if self.config.neutral == "flow":
            return sources  # they do already
        charges, others = sources[..., 0], sources[..., 1:]
        mean = mean_over_atoms(charges, atoms.batch, atoms.n_structures)[atoms.batch]
        return torch.cat(((charges - mean)[..., None], others), dim=2)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:  # of .to() and the like
        references, condensation = self.references, self.condensation
        super()._apply(fn, recurse)
        device = self.references.device
        self.references = references.to(device, torch.float64)  # in float32, 5e4 eV are known to 0.004 eV
        self.condensation = condensation.to(device, torch.float64)
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        state_dict.setdefault(f"{prefix}condensation", self.condensation)  # of older weights
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def set_tolerance(self, tolerance: float) -> None:
        """Absolute error of the lattice sums from now on."""
        if self.config.n_sources:
            self.site_potentials.tolerance = tolerance

    def set_references(self, references: Tensor, energy_scale: float, elements: Tensor | None = None) -> None:
        """What a training set says of energies.

        references: (95,) energies of atoms by atomic number, eV, free ones or not
        energy_scale: of the network's energies, eV
        elements: (95,) bool, those that the training set holds; None for all
        """
        self.references.copy_(references)
        self.condensation.zero_()
        self.energy_scale.fill_(energy_scale)
        if elements is not None:
            self.elements.copy_(elements)

    def set_free_atoms(self, energies: Tensor) -> None:
        """Energies (95,) of free atoms, eV, NaN where they stay; those of atoms with neighbours stay, too."""
        energies, condensed = energies.to(self.references), self.references + self.condensation
        self.references.copy_(torch.where(energies.isnan(), self.references, energies))
        self.condensation.copy_(condensed - self.references)


class Layer(nn.Module):
    """One message passing step."""

    spread: Tensor
    contract: Tensor

    def __init__(self, config: EquivariantPotNetConfig, *, first: bool, last: bool, complete: bool) -> None:
        super().__init__()
        width = config.width
        s, v, t = config.message_width
        self.widths = (s,) if first else (s, v, t)
        self.n_radial = config.n_radial
        n_message = sum(self.widths)
        self.senders = nn.ModuleList(nn.Linear(width, w, bias=False) for w in self.widths)
        for name, table in zip(("spread", "contract"), _contraction(self.widths, config.l_max), strict=True):
            self.register_buffer(name, table, persistent=False)
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
        self, scalars: Tensor, higher: Sequence[Tensor], around: Neighbourhoods, complete: CompletePotentials | None
    ) -> tuple[Tensor, list[Tensor]]:
        width = scalars.shape[1]
        sent = self.sent(scalars, higher)
        mixed = self.mix(around.of_atoms(lambda group: group.sum_over_neighbours(self.messages(sent, group))))
        if complete is not None and complete.fields is not None:
            vectors = self.fields(complete.fields).transpose(0, 1)  # (3, T, 2 C)
            mixed = torch.cat((mixed[:1], mixed[1:4] + vectors, mixed[4:]))
        mixed = mixed * (saturation(mixed)[:, None] * (1 + self.gain(scalars)))
        second, third = self.grid.products(mixed)  # (1 or 9, T, C)
        invariants = [scalars, mixed[0], second[0], third[0]]
        if complete is not None:
            invariants.append(complete.potentials)
        hidden = self.update(torch.cat(invariants, dim=1))
        result = []
        gates = torch.sigmoid(self.gates(hidden)).split(width, 1) if self.outputs else ()
        for l, linear in enumerate(self.outputs, start=1):
            some = slice(l * l, (l + 1) ** 2)
            new = linear(torch.cat((mixed[some, :, :width], second[some], third[some]), dim=2)) * gates[l - 1]
            result.append(new + higher[l - 1] if higher else new)
        return scalars + self.residual(hidden), result

    def sent(self, scalars: Tensor, higher: Sequence[Tensor]) -> Tensor:
        """What atoms send to their neighbours, of degree 0, 1 and 2. (T, sum (2l+1) M_l)"""
        parts = [self.senders[0](scalars)]
        if len(self.widths) == 1:
            return 0.1 * parts[0]
        for linear, part in zip(self.senders[1:], higher, strict=True):
            parts.append(linear(part).transpose(0, 1).flatten(1))  # (T, (2l+1) M_l)
        return torch.cat(parts, dim=1)

    def messages(self, sent: Tensor, env: Environment) -> Tensor:
        """What the neighbours sent, that of degree 1 and 2 contracted with the direction. (T, K, M)"""
        at_neighbours = env.at_neighbours(sent)
        if len(self.widths) == 1:
            return at_neighbours
        if is_recorded():
            return self._contracted(at_neighbours, env.harmonics)
        return (at_neighbours * (env.harmonics @ self.spread.to(sent))) @ self.contract.to(sent)

    def _contracted(self, features: Tensor, harmonics: Tensor) -> Tensor:
        """The same contraction without tables: few numbers, which a compiler sums in registers."""
        parts, start = [], 0
        for l, width in enumerate(self.widths):
            columns = [features[..., start + m * width : start + (m + 1) * width] for m in range(2 * l + 1)]
            some = [column * harmonics[..., l * l + m, None] for m, column in enumerate(columns)]
            parts.append(sum(some[1:], some[0]) * (0.1 * (2 * l + 1) ** -0.5))
            start += (2 * l + 1) * width
        return torch.cat(parts, dim=-1)

    def mix(self, sums: Tensor) -> Tensor:
        """Two mixtures of the sums of each degree. (T, n_products, M) -> (n_lm, T, 2 C)"""
        n_atoms = sums.shape[0]
        parts = sums.split([(2 * l + 1) * n for l, n in enumerate(self.n_radial)], dim=1)
        mixed = []
        for l, (part, weight) in enumerate(zip(parts, self.mixing, strict=True)):
            rows = part.reshape(n_atoms, 2 * l + 1, -1).transpose(0, 1).reshape((2 * l + 1) * n_atoms, -1)
            mixed.append(rows @ weight)
        return torch.cat(mixed).view(-1, n_atoms, weight.shape[1])


def _contraction(widths: tuple[int, ...], l_max: int) -> tuple[Tensor, Tensor]:
    """Tables that contract features (l, m, channel) with harmonics: Y · spread times features, times contract.

    Returns (n_lm, sum (2l+1) M_l) and (sum (2l+1) M_l, sum M_l), a factor 0.1 (2l+1)^-1/2 in the second.
    """
    columns = [(l, l * l + m, c) for l, width in enumerate(widths) for m in range(2 * l + 1) for c in range(width)]
    n_columns, double = len(columns), torch.float64
    spread = torch.zeros((l_max + 1) ** 2, n_columns, dtype=double)
    contract = torch.zeros(n_columns, sum(widths), dtype=double)
    for column, (l, lm, c) in enumerate(columns):
        spread[lm, column] = 1.0
        contract[column, sum(widths[:l]) + c] = 0.1 * (2 * l + 1) ** -0.5
    return spread, contract


def saturation(sums: Tensor) -> Tensor:
    """What divides an atom's sums by their smooth norm, so that they are at most of order one. (n_lm, T, C) -> (T,)"""
    return torch.rsqrt(1 + (sums * sums).mean((0, 2)))


class Readout(nn.Module):
    """Energy of an atom in units of the energy scale, from its invariant features."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, width // 2), nn.SiLU(), nn.Linear(width // 2, 1, bias=False))

    def forward(self, scalars: Tensor) -> Tensor:
        """(T, C) -> (T,)"""
        energies: Tensor = self.layers(scalars)[:, 0]
        return energies
