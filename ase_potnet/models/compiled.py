"""The interatomic potential with its networks compiled; the lattice sums in between stay as they are."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from ase_potnet.graph import AtomsBatch, Edges
from ase_potnet.models.equivariant_potnet import EquivariantPotNet


class CompiledPotential:
    """Energies of the atoms as the model gives them, its two networks compiled by TorchInductor for sizes of any kind.

    The first call compiles (a minute; TorchInductor keeps the result on disk, so that later runs take seconds). Where
    that fails, as without a C++ compiler, a warning says so and the model itself runs. First derivatives only.
    """

    def __init__(self, model: EquivariantPotNet) -> None:
        self.model = model
        self._compiled: EquivariantPotNet | None = _with_compiled_parts(model)

    def __call__(self, atoms: AtomsBatch, edges: Edges | None = None) -> Tensor:
        if self._compiled is None or len(atoms.numbers) == 1:  # one atom would be compiled anew, as another shape
            return self._energies(self.model, atoms, edges)
        try:
            return self._energies(self._compiled, atoms, edges)
        except Exception as error:
            energies = self._energies(self.model, atoms, edges)  # wrong input raises its own error here
            self._compiled = None
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            warnings.warn(f"compile: goes on without, {type(error).__name__}: {reason}", stacklevel=2)
            return energies

    @staticmethod
    def _energies(model: Any, atoms: AtomsBatch, edges: Edges | None) -> Tensor:
        energies: Tensor = model(atoms, edges)
        return energies

    def __reduce__(self) -> tuple[Any, ...]:
        return CompiledPotential, (self.model,)


def _with_compiled_parts(model: EquivariantPotNet) -> EquivariantPotNet:
    """A view of the model, with its parameters, whose two networks are compiled."""
    view = object.__new__(type(model))
    view.__dict__.update(model.__dict__)
    for name in ("before_potentials", "after_potentials"):
        object.__setattr__(
            view, name, torch.compile(getattr(model, name), dynamic=True, fullgraph=True, options={"cpp_wrapper": True})
        )
    return view
