"""What is learned: properties, or energy with forces and stress. Batches, losses, scaling and scores of each."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ase_potnet.graph import AtomsBatch
from ase_potnet.models.known_elements import KnowsElements
from ase_potnet.models.scaling import NO_MINIMUM
from ase_potnet.pretrained import Target

from .arrays import Floats, StructureArrays
from .batches import Rows, pairs_in
from .evaluation import predict_arrays, predict_energies, predict_energies_alone, predict_properties
from .losses import LossTerm, masked_loss
from .metrics import Metrics, element_references, energy_metrics, fit_element_shifts, property_metrics
from .recipe import DifferencesConfig, LossConfig, Recipe, TermConfig
from .schedules import weight_at

_STRUCTURES_PER_ELEMENT = 5  # fewer, and references of elements would explain anything


@dataclass(frozen=True)
class LabelledBatch:
    """Structures and what is known about them; NaN where nothing is.

    atoms: the structures
    labels: see `StructureArrays.values`
    weight: (B,) of the frames
    pairs: (P, 2) frames of one family (see `StructureArrays`), in energy tasks
    """

    atoms: AtomsBatch
    labels: dict[str, Tensor]
    weight: Tensor
    pairs: Tensor | None = None

    def to(self, device: torch.device | str) -> LabelledBatch:
        """The same batch on another device."""
        labels = {name: values.to(device) for name, values in self.labels.items()}
        pairs = None if self.pairs is None else self.pairs.to(device)
        return LabelledBatch(self.atoms.to(device), labels, self.weight.to(device), pairs)


class Task(Protocol):
    """What a training needs to know about what is learned."""

    @property
    def name(self) -> str:
        """As in recipes."""
        ...

    @property
    def targets(self) -> tuple[Target, ...]:
        """What is predicted."""
        ...

    def collate(self, arrays: StructureArrays, rows: Rows) -> LabelledBatch:
        """A batch on the host."""
        ...

    def fit_scaling(self, model: nn.Module, arrays: StructureArrays) -> None:
        """Give the model the statistics of the training part."""
        ...

    def loss_terms(self, model: nn.Module, batch: LabelledBatch, progress: float) -> list[LossTerm]:
        """The parts of the loss; progress runs from 0 to 1."""
        ...

    def predict(self, model: nn.Module, atoms: AtomsBatch) -> dict[str, Tensor]:
        """Predictions by name, shaped as `StructureArrays.values`."""
        ...

    def metrics(self, predictions: dict[str, Floats], arrays: StructureArrays) -> Metrics:
        """Errors of predictions for all structures of the arrays."""
        ...

    def score(self, model: nn.Module, metrics: Metrics) -> float:
        """One number to be made small."""
        ...


@dataclass(frozen=True)
class PropertyTask:
    """Intensive properties: one number a structure and target."""

    targets: tuple[Target, ...]
    dtype: torch.dtype
    loss: LossConfig = field(default_factory=LossConfig)
    name: str = "property"

    def collate(self, arrays: StructureArrays, rows: Rows) -> LabelledBatch:
        labels = {"targets": torch.from_numpy(arrays.values["targets"][rows])}
        return LabelledBatch(arrays.atoms_batch(rows, self.dtype), labels, torch.ones(len(rows), dtype=self.dtype))

    def fit_scaling(self, model: nn.Module, arrays: StructureArrays) -> None:
        composition = arrays.composition()
        fractions = torch.from_numpy(composition / composition.sum(axis=1, keepdims=True))
        enough = len(arrays) >= _STRUCTURES_PER_ELEMENT * np.count_nonzero(composition.any(axis=0))
        scaling: Any = model.scaling
        scaling.fit(torch.from_numpy(arrays.values["targets"]), fractions if enough else None)
        if isinstance(model, KnowsElements):
            model.elements.copy_(torch.from_numpy(composition.max(axis=0)[: len(model.elements)] > 0))

    def set_limits(self, model: nn.Module) -> None:
        """The lowest possible values of the targets."""
        limits = [NO_MINIMUM if target.minimum is None else target.minimum for target in self.targets]
        scaling: Any = model.scaling
        scaling.minimum.copy_(torch.tensor(limits))

    def loss_terms(self, model: nn.Module, batch: LabelledBatch, progress: float) -> list[LossTerm]:
        predictions = model(batch.atoms)
        scaling: Any = model.scaling
        targets = batch.labels["targets"]
        error = (predictions - targets.to(predictions)) / scaling.std.to(predictions)  # (B, n_targets)
        weights = self.loss.target_weights or (1.0,) * len(self.targets)
        terms = []
        for column, (target, weight) in enumerate(zip(self.targets, weights, strict=True)):
            known = ~torch.isnan(targets[:, column])
            total, count = masked_loss(self.loss.kind, error[:, column], known, delta=self.loss.delta)
            terms.append(LossTerm(target.name, total, count, weight))
        return terms

    def predict(self, model: nn.Module, atoms: AtomsBatch) -> dict[str, Tensor]:
        return predict_properties(model, atoms)

    def metrics(self, predictions: dict[str, Floats], arrays: StructureArrays) -> Metrics:
        return property_metrics(self.targets, predictions["targets"], arrays.values["targets"])

    def score(self, model: nn.Module, metrics: Metrics) -> float:
        """Mean over the targets of MAE over standard deviation; the MAE itself where there is one target."""
        errors = [metrics[target.name].get("mae", 0.0) for target in self.targets]
        if len(errors) == 1:
            return errors[0]
        scaling: Any = model.scaling
        return float(np.mean(np.array(errors) / scaling.std.cpu().numpy()))


@dataclass(frozen=True)
class EnergyTask:
    """Energy of the cell with its derivatives: forces and stress."""

    dtype: torch.dtype
    loss: LossConfig = field(default_factory=LossConfig)
    name: str = "energy"
    targets: tuple[Target, ...] = (Target("energy", "eV"), Target("forces", "eV/Å"), Target("stress", "eV/Å^3"))

    def collate(self, arrays: StructureArrays, rows: Rows) -> LabelledBatch:
        atoms = arrays.atoms_batch(rows, self.dtype)
        labels = {
            name: torch.from_numpy(arrays.values[name][arrays.atom_rows(rows) if name == "forces" else rows])
            for name in ("energy", "forces", "stress")
        }
        weights = np.array([self.loss.kind_weights.get(kind, 1.0) for kind in arrays.kinds])
        pairs = None if self.loss.differences is None else torch.from_numpy(pairs_in(rows, arrays.family))
        return LabelledBatch(atoms, labels, torch.from_numpy(weights[arrays.kind[rows]]).to(self.dtype), pairs)

    def fit_scaling(self, model: nn.Module, arrays: StructureArrays) -> None:
        """Element references and the scale of forces.

        The model's `set_references` gets: energies of the elements by atomic number, as many as its `references`, the
        root mean square of the forces as the scale of energies, and which elements there are.
        """
        energies, forces = arrays.values["energy"], arrays.values["forces"]
        known = np.isfinite(energies)
        if not known.any() or not np.isfinite(forces).any():
            raise ValueError("data: the training part has no energies or no forces")
        network: Any = model
        composition = arrays.composition()  # elements of frames with forces alone are learned, too
        references = element_references(composition[known], energies[known])[: len(network.references)]
        elements = torch.from_numpy((composition > 0).max(axis=0)[: len(references)])
        network.set_references(torch.from_numpy(references), float(np.sqrt(np.nanmean(forces**2))), elements)

    def loss_terms(self, model: nn.Module, batch: LabelledBatch, progress: float) -> list[LossTerm]:
        from ase_potnet.models.derivatives import differentiate

        weights = {
            name: weight_at(getattr(self.loss, name).weight, progress) for name in ("energy", "forces", "stress")
        }
        forces = weights["forces"] > 0 or self.loss.differences is not None
        stress = weights["stress"] > 0
        found = differentiate(model, batch.atoms, forces=forces, stress=stress, create_graph=True)
        n_atoms = batch.atoms.n_atoms
        labels, terms = batch.labels, []

        def add(name: str, error: Tensor | None, frame_weight: Tensor) -> None:
            config: TermConfig = getattr(self.loss, name)
            if error is None:  # every process has all terms
                nothing = torch.zeros((), dtype=self.dtype, device=frame_weight.device)
                terms.append(LossTerm(name, nothing, nothing, weights[name]))
                return
            total, count = masked_loss(config.kind, error, torch.isfinite(labels[name]), frame_weight, config.delta)
            terms.append(LossTerm(name, total, count, weights[name]))

        # the difference in float64: energies are large and their errors small
        energy_error = (found.energy.double() - labels["energy"]) / n_atoms
        weight = batch.weight
        if self.loss.stress_scale is not None:
            rms = torch.nan_to_num(labels["stress"]).square().mean((1, 2)).sqrt()
            weight = weight / (1 + rms / self.loss.stress_scale)
        add("energy", energy_error.to(self.dtype), weight)
        forces_error = None if found.forces is None else found.forces - labels["forces"].to(found.forces)
        stress_error = None if found.stress is None else found.stress - labels["stress"].to(found.stress)
        force_weight = batch.weight
        if self.loss.force_scale is not None:
            rms = frame_rms(labels["forces"], batch.atoms)
            force_weight = force_weight / (self.loss.force_scale + rms) ** self.loss.force_power
        add("forces", forces_error, force_weight[batch.atoms.batch])
        add("stress", stress_error, weight)
        if self.loss.differences is not None:
            assert forces_error is not None
            terms.append(_differences(self.loss.differences, forces_error, batch, progress))
        return terms

    def predict(self, model: nn.Module, atoms: AtomsBatch) -> dict[str, Tensor]:
        return predict_energies(model, atoms)

    def metrics(self, predictions: dict[str, Floats], arrays: StructureArrays) -> Metrics:
        return energy_metrics(predictions, arrays)

    def score(self, model: nn.Module, metrics: Metrics) -> float:
        """Σ weight · MAE of energy per atom, forces and stress, with the last weights."""
        names = {"energy": "energy_per_atom", "forces": "forces", "stress": "stress"}
        return sum(
            weight_at(getattr(self.loss, term).weight, 1.0) * metrics[name].get("mae", 0.0)
            for term, name in names.items()
        )


def _differences(config: DifferencesConfig, error: Tensor, batch: LabelledBatch, progress: float) -> LossTerm:
    """Of the forces on the two frames of every pair. error: (T, 3) of the forces."""
    assert batch.pairs is not None
    forces, n_atoms = batch.labels["forces"], batch.atoms.n_atoms
    first = torch.cumsum(n_atoms, 0) - n_atoms
    sizes = n_atoms[batch.pairs[:, 0]]
    pair = torch.repeat_interleave(torch.arange(len(sizes), device=sizes.device), sizes)
    within = torch.arange(len(pair), device=sizes.device) - (torch.cumsum(sizes, 0) - sizes)[pair]
    one, other = first[batch.pairs[pair]].add(within[:, None]).unbind(1)
    wanted = (forces[other] - forces[one]).to(error)
    rms = _rms(wanted, pair, sizes)
    found = error[other] - error[one]
    known = torch.isfinite(wanted)
    total, count = masked_loss(config.kind, found, known, ((config.scale + rms) ** -config.power)[pair], config.delta)
    return LossTerm("differences", total, count, weight_at(config.weight, progress))


def frame_rms(forces: Tensor, atoms: AtomsBatch) -> Tensor:
    """Root mean square of the lengths of the forces of every structure, missing ones as zeros. (T, 3) -> (B,)"""
    return _rms(forces, atoms.batch, atoms.n_atoms)


def _rms(vectors: Tensor, group: Tensor, sizes: Tensor) -> Tensor:
    """Of the lengths of the vectors of every group, missing ones as zeros. (T, 3), (T,), (B,) -> (B,)"""
    square = torch.nan_to_num(vectors).square().sum(1)
    return (square.new_zeros(len(sizes)).index_add(0, group, square) / sizes).sqrt()


def shift_references(
    model: nn.Module, arrays: StructureArrays, dtype: torch.dtype, elements: Collection[int] | None = None
) -> None:
    """Shift the references of the elements in the arrays so that the energies of the model agree best with theirs.

    The shift is that of least squares, of one value per element; elements that always come in the same ratio share it.
    Nothing is shifted where the arrays hold no energies.

    elements: atomic numbers of those to shift; None for all
    """
    if not np.isfinite(arrays.values["energy"]).any():
        return
    predicted = predict_arrays(predict_energies_alone, model, arrays, dtype=dtype)["energy"]
    network: Any = model
    shifts = fit_element_shifts(predicted, arrays, elements)[: len(network.references)]
    present = arrays.composition().max(axis=0)[: len(shifts)] > 0
    network.references += torch.from_numpy(np.where(present, shifts, 0.0)).to(network.references)


def dtype_of(recipe: Recipe) -> torch.dtype:
    """The dtype of a training."""
    return torch.float64 if recipe.dtype == "float64" else torch.float32


def make_task(recipe: Recipe) -> PropertyTask | EnergyTask:
    """The task of a recipe."""
    dtype = dtype_of(recipe)
    if recipe.task == "energy":
        return EnergyTask(dtype, recipe.loss)
    return PropertyTask(tuple(target.target() for target in recipe.data.targets), dtype, recipe.loss)
