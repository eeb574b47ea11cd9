"""Targets of networks: from physical units to numbers of order one and back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ase_potnet.graph import AtomsBatch

N_ELEMENTS = 119  # rows by atomic number, 0 unused
NO_MINIMUM = torch.finfo(torch.float32).min  # finite, as weights have to be


def composition(atoms: AtomsBatch) -> Tensor:
    """Fraction of the atoms of each element in every structure. (B, 119), dtype of the positions"""
    index = atoms.batch * N_ELEMENTS + atoms.numbers
    counts = torch.bincount(index, minlength=atoms.n_structures * N_ELEMENTS).view(-1, N_ELEMENTS)
    return (counts / counts.sum(1, keepdim=True)).to(atoms.dtype)


class TargetScaling(nn.Module):
    """target = mean + std · output + composition · references, one column per target.

    The references are a value per element, zero unless ``fit`` is given compositions: the linear model of the target in
    the composition, which leaves the network the smaller rest. Except in training, results below the ``minimum`` of a
    target are raised to it.
    """

    mean: Tensor
    std: Tensor
    references: Tensor
    minimum: Tensor

    def __init__(self, n_targets: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_targets))
        self.register_buffer("std", torch.ones(n_targets))
        self.register_buffer("references", torch.zeros(N_ELEMENTS, n_targets))
        self.register_buffer("minimum", torch.full((n_targets,), NO_MINIMUM))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        state_dict.setdefault(f"{prefix}minimum", torch.full_like(self.minimum, NO_MINIMUM))  # of older weights
        super()._load_from_state_dict(state_dict, prefix, *rest)

    @torch.no_grad()
    def fit(self, values: Tensor, fractions: Tensor | None = None, *, ridge: float = 1e-3) -> None:
        """Take over the statistics of a training set.

        Args:
            values: (B, n_targets) in physical units; NaN where missing.
            fractions: (B, 119) from ``composition``; None for no references.
            ridge: penalty on the squared references, relative to one structure; keeps rare elements tame.

        Raises:
            ValueError: naming values or fractions of the wrong shape, or a target without any value.
        """
        if values.ndim != 2 or values.shape[1] != len(self.mean):
            raise ValueError(f"values must have shape (B, {len(self.mean)}), got {tuple(values.shape)}")
        if fractions is not None and fractions.shape != (len(values), N_ELEMENTS):
            raise ValueError(f"fractions must have shape ({len(values)}, {N_ELEMENTS}), got {tuple(fractions.shape)}")
        for target, column in enumerate(values.double().T):
            known = ~torch.isnan(column)
            if not known.any():
                raise ValueError(f"values must hold a value for every target, got none for target {target}")
            rest, mean = column[known], column[known].mean()
            references = torch.zeros(N_ELEMENTS, dtype=torch.float64, device=values.device)
            if fractions is not None:
                references = _least_squares(fractions[known].double(), rest - mean, ridge)
                rest = rest - fractions[known].double() @ references
                mean = rest.mean()
            spread = rest.std(correction=0)
            self.mean[target] = mean
            self.std[target] = spread if spread > 1e-8 * (1 + mean.abs()) else 1.0
            self.references[:, target] = references

    def normalise(self, values: Tensor, fractions: Tensor | None = None) -> Tensor:
        """Targets as the network sees them, (B, n_targets) each.

        Without fractions the references are not taken off: the difference of two normalised values, all that a loss
        needs, is the same.
        """
        if fractions is not None:
            values = values - fractions.to(values) @ self.references.to(values)
        return (values - self.mean.to(values)) / self.std.to(values)

    def restore(self, outputs: Tensor, fractions: Tensor | None = None) -> Tensor:
        """Outputs of the network in physical units, (B, n_targets) each; the inverse of ``normalise``."""
        values = outputs * self.std.to(outputs) + self.mean.to(outputs)
        if fractions is not None:
            values = values + fractions.to(outputs) @ self.references.to(outputs)
        return values if self.training else torch.maximum(values, self.minimum.to(outputs))


def _least_squares(fractions: Tensor, values: Tensor, ridge: float) -> Tensor:
    """References x that minimise |fractions · x - values|^2 + ridge |x|^2. (119,)"""
    normal = fractions.T @ fractions + ridge * torch.eye(N_ELEMENTS, dtype=fractions.dtype, device=fractions.device)
    return torch.linalg.solve(normal, fractions.T @ values)
